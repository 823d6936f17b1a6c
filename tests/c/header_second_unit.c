/* The second unit of header_twice.c, in which DLPack's header comes first. */
#include "dl_tensor.h"

#include <tfckpt.h>

#ifdef __cplusplus
extern "C" uint32_t version_seen_by_the_second_unit(void);
#else
uint32_t version_seen_by_the_second_unit(void);
#endif

uint32_t version_seen_by_the_second_unit(void)
{
    return TFCKPT_VERSION_NUMBER;
}
