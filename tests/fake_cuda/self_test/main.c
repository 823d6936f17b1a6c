/* Tests of the fake CUDA driver itself: what the tests of the library rely on, and that mistakes are seen.
 *
 *   self_test LIB_DIR [report]
 *
 * LIB_DIR is what build.sh made. "report" is the second half of one of the tests, run as a program of its own. */
#include "check.h"

const char *lib_dir, *program;

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
#define ENTRY(name) { #name, name },
    TESTS(ENTRY)
#undef ENTRY
};

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s LIB_DIR\n", argv[0]);
        return 2;
    }
    program = argv[0];
    lib_dir = argv[1];
    if (argc > 2 && strcmp(argv[2], "report") == 0) {
        leave_something();
        return 0;
    }
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        tests[i].run();
        printf("ok      %s\n", tests[i].name);
        fflush(stdout);
    }
    fakecuda_reset();
    return 0;
}
