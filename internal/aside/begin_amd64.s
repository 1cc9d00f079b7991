#include "textflag.h"
#include "go_asm.h"

// The numbers of linux/unistd.h for amd64.
#define SYS_rt_sigprocmask 14
#define SYS_clone 56
#define SYS_exit 60
#define SIG_SETMASK 2

// func begin(flags uintptr, pidfd *int32, masks *[2]uint64, c *call) (pid uintptr)
TEXT ·begin(SB), NOSPLIT, $0-40
	MOVQ masks+16(FP), R13
	MOVQ c+24(FP), R12

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	MOVQ R13, SI
	LEAQ 8(R13), DX
	MOVQ $8, R10
	SYSCALL
	TESTQ AX, AX
	JNE  done

	MOVQ $SYS_clone, AX
	MOVQ flags+0(FP), DI
	XORL SI, SI
	MOVQ pidfd+8(FP), DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JEQ  child

	MOVQ AX, BX
	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	LEAQ 8(R13), SI
	XORL DX, DX
	MOVQ $8, R10
	SYSCALL
	MOVQ BX, AX
done:
	MOVQ AX, pid+32(FP)
	RET

child:
	MOVQ call_number(R12), AX
	MOVQ (call_args+0)(R12), DI
	MOVQ (call_args+8)(R12), SI
	MOVQ (call_args+16)(R12), DX
	MOVQ (call_args+24)(R12), R10
	MOVQ (call_args+32)(R12), R8
	MOVQ (call_args+40)(R12), R9
	SYSCALL
	MOVQ $SYS_exit, AX
	XORL DI, DI
	SYSCALL
	INT  $3
