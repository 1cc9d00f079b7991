#include "textflag.h"
#include "go_asm.h"

// func doCalls(first *call, n int)
TEXT ·doCalls(SB), NOSPLIT, $0-16
	MOVQ first+0(FP), R12
	MOVQ n+8(FP), R13
next:
	TESTQ R13, R13
	JZ    done
	MOVQ  call_number(R12), AX
	MOVQ  call_a(R12), DI
	MOVQ  call_b(R12), SI
	ORQ   call_path(R12), SI
	MOVQ  call_c(R12), DX
	XORL  R10, R10
	SYSCALL
	MOVQ  AX, call_result(R12)
	ADDQ  $call__size, R12
	DECQ  R13
	JMP   next
done:
	RET
