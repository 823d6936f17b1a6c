/* The header may be included twice, and in two units of one program (the other one is header_second_unit.c). */
#include <tfckpt.h>
#include <tfckpt.h>

#ifdef __cplusplus
extern "C" uint32_t version_seen_by_the_second_unit(void);
#else
uint32_t version_seen_by_the_second_unit(void);
#endif

int main(void)
{
    return version_seen_by_the_second_unit() == tfckpt_version() && tfckpt_version() == TFCKPT_VERSION_NUMBER ? 0 : 1;
}
