/* First instruction of a bare function, and the note that makes it one. RDI: information page. */
	.section .note.kiln, "a", @note
	.balign 4
	.long 5, 16, 1                  /* sizes of name and descriptor, type */
	.asciz "Kiln"
	.balign 4
	.long 1, 0                      /* ABI, flags */
	.quad kiln_stack_bytes          /* from the linker script, or kiln build --stack */

	.section .text.start, "ax", @progbits
	.globl _start
	.type _start, @function
_start:
	xorl %ebp, %ebp
	call kiln_main
	ud2
	.size _start, . - _start
	.section .note.GNU-stack, "", @progbits
