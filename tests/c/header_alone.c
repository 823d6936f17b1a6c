/* Compiled, not run: the header needs nothing before it. */
#include <tfckpt.h>
