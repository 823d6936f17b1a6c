/* Faults: which call of which symbol, or which operation on a stream, fails with which code. */
#include "fake.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct fault {
    char symbol[64];
    uint64_t nth, seen;
    int code;
};
enum { MAX_FAULTS = 64 };
static struct fault faults[MAX_FAULTS];
static size_t num_faults;

void faults_clear(void)
{
    num_faults = 0;
}

bool symbol_matches(const char *pattern, const char *symbol)
{
    if (strcmp(pattern, "*") == 0)
        return true;
    size_t len = strlen(pattern);
    if (strncmp(pattern, symbol, len) != 0)
        return false;
    const char *rest = symbol + len;
    return *rest == '\0' || (rest[0] == '_' && rest[1] == 'v' && isdigit((unsigned char)rest[2]) && rest[3] == '\0');
}

/* One item "symbol:nth:code" of `len` characters. */
static bool parse(const char *item, size_t len, struct fault *fault)
{
    char text[128];
    if (len >= sizeof text)
        return false;
    memcpy(text, item, len);
    text[len] = '\0';
    char *nth = strchr(text, ':');
    char *code = nth ? strchr(nth + 1, ':') : NULL;
    if (!code || nth == text || (size_t)(nth - text) >= sizeof fault->symbol)
        return false;
    *nth++ = '\0';
    *code++ = '\0';
    *fault = (struct fault){ .seen = 0 };
    strcpy(fault->symbol, text);
    char *end_of_nth, *end_of_code;
    fault->nth = strtoull(nth, &end_of_nth, 10);
    fault->code = (int)strtol(code, &end_of_code, 10);
    return isdigit((unsigned char)*nth) && isdigit((unsigned char)*code) && *end_of_nth == '\0' && *end_of_code == '\0' &&
           fault->nth > 0 && fault->code > 0;
}

int fakecuda_set_faults(const char *list)
{
    fake_lock();
    num_faults = 0;
    const char *at = list ? list : "";
    bool good = true;
    while (*at != '\0' && good) {
        size_t len = strcspn(at, ",");
        good = num_faults < MAX_FAULTS && parse(at, len, &faults[num_faults]);
        num_faults++;
        at += len;
        at += *at == ',';
    }
    if (!good)
        num_faults = 0;
    fake_unlock();
    return good ? 0 : -1;
}

static CUresult hit(const char *symbol, bool (*matches)(const char *, const char *))
{
    int code = 0;
    for (size_t i = 0; i < num_faults; i++) {
        struct fault *fault = &faults[i];
        if (!matches(fault->symbol, symbol) || ++fault->seen != fault->nth)
            continue;
        counts.faults_fired++;
        if (!code)
            code = fault->code;
    }
    return (CUresult)code;
}

static bool is_same(const char *left, const char *right)
{
    return strcmp(left, right) == 0;
}

CUresult fault_of_call(const char *symbol)
{
    return hit(symbol, symbol_matches);
}

CUresult fault_of_operation(void)
{
    return hit("ASYNC", is_same);
}

uint64_t fakecuda_faults_fired(void)
{
    fake_lock();
    uint64_t fired = counts.faults_fired;
    fake_unlock();
    return fired;
}
