#include "textflag.h"
#include "go_asm.h"

// The numbers of asm-generic/unistd.h.
#define SYS_rt_sigprocmask 135
#define SYS_clone 220
#define SYS_exit 93
#define SIG_SETMASK 2

// func begin(flags uintptr, pidfd *int32, masks *[2]uint64, c *call) (pid uintptr)
TEXT ·begin(SB), NOSPLIT, $0-40
	MOVD masks+16(FP), R19
	MOVD c+24(FP), R20

	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	MOVD R19, R1
	ADD  $8, R19, R2
	MOVD $8, R3
	SVC
	CBNZ R0, done

	MOVD $SYS_clone, R8
	MOVD flags+0(FP), R0
	MOVD $0, R1
	MOVD pidfd+8(FP), R2
	MOVD $0, R3
	MOVD $0, R4
	SVC
	CBZ  R0, child

	MOVD R0, R21
	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	ADD  $8, R19, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	MOVD R21, R0
done:
	MOVD R0, pid+32(FP)
	RET

child:
	MOVD call_number(R20), R8
	MOVD (call_args+0)(R20), R0
	MOVD (call_args+8)(R20), R1
	MOVD (call_args+16)(R20), R2
	MOVD (call_args+24)(R20), R3
	MOVD (call_args+32)(R20), R4
	MOVD (call_args+40)(R20), R5
	SVC
	MOVD $SYS_exit, R8
	MOVD $0, R0
	SVC
	BRK  $0
