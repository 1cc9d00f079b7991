#include "textflag.h"
#include "go_asm.h"

// func doCalls(first *call, n int)
TEXT ·doCalls(SB), NOSPLIT, $0-16
	MOVD first+0(FP), R19
	MOVD n+8(FP), R20
next:
	CBZ  R20, done
	MOVD call_number(R19), R8
	MOVD call_a(R19), R0
	MOVD call_b(R19), R1
	MOVD call_path(R19), R2
	ORR  R2, R1, R1
	MOVD call_c(R19), R2
	MOVD $0, R3
	SVC
	MOVD R0, call_result(R19)
	ADD  $call__size, R19
	SUB  $1, R20
	B    next
done:
	RET
