/* Handles are numbers that no pointer can equal: kind, epoch of the reset, index. They are looked up in a table and never
 * used again before a reset, so a destroyed, foreign or stale handle is always told from a living one. */
#include "fake.h"

#include <stdlib.h>

struct entry {
    enum kind kind;
    void *object; /* NULL: retired */
};
static struct entry *entries;
static size_t num_entries, capacity;

static const uint64_t mark = UINT64_C(0xFC) << 56; /* not a canonical address */

static uint64_t stamp(enum kind kind)
{
    return mark | (uint64_t)kind << 48 | (uint64_t)(epoch & 0xFFFF) << 32;
}

void *handle_new(enum kind kind, void *object)
{
    if (num_entries == capacity) {
        capacity = capacity ? 2 * capacity : 256;
        entries = realloc(entries, capacity * sizeof *entries);
        if (!entries)
            abort();
    }
    entries[num_entries] = (struct entry){ kind, object };
    num_entries++;
    return (void *)(uintptr_t)(stamp(kind) | num_entries);
}

static struct entry *find(const void *handle)
{
    uint64_t value = (uintptr_t)handle;
    uint64_t index = value & UINT32_MAX;
    if (index == 0 || index > num_entries)
        return NULL;
    struct entry *entry = &entries[index - 1];
    return (value & ~(uint64_t)UINT32_MAX) == stamp(entry->kind) ? entry : NULL;
}

void *handle_get(enum kind kind, const void *handle)
{
    struct entry *entry = find(handle);
    return entry && entry->kind == kind ? entry->object : NULL;
}

void handle_retire(const void *handle)
{
    struct entry *entry = find(handle);
    if (entry)
        entry->object = NULL;
}

void handles_forget(void)
{
    free(entries);
    entries = NULL;
    num_entries = capacity = 0;
}
