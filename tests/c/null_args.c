/* Every function with each of its pointers NULL in turn: what must not be NULL is refused with INVALID_ARGUMENT and
 * nothing is written anywhere; what may be NULL is really optional; freeing NULL does nothing. */
#include "check.h"

/* The call is refused, with an error object. It may use `error`. */
#define REFUSED(call) CHECK_FAILS(call, TFCKPT_INVALID_ARGUMENT, error, "")
/* The same without an error object: every `error_out` may be NULL. */
#define REFUSED_QUIETLY(call) CHECK((call) == TFCKPT_INVALID_ARGUMENT)

/* Stands for a handle that the caller had before: an output that a refused call must leave alone. */
static char untouched;
#define UNTOUCHED(type) ((type *)(void *)&untouched)
#define IS_UNTOUCHED(pointer) CHECK((void *)(pointer) == (void *)&untouched)

static void freeing_null_does_nothing(void)
{
    tfckpt_error_free(NULL);
    tfckpt_string_free(NULL);
    tfckpt_strings_free(NULL);
    tfckpt_context_trim(NULL);
    tfckpt_context_free(NULL);
    tfckpt_reader_free(NULL);
    tfckpt_entry_free(NULL);
    tfckpt_entries_free(NULL);
    tfckpt_view_free(NULL);
    tfckpt_buffer_free(NULL);
    tfckpt_object_graph_free(NULL);
    tfckpt_checkpoint_state_free(NULL);
    tfckpt_saver_free(NULL);
    tfckpt_saver_cancel(NULL);
    tfckpt_job_cancel(NULL);
    tfckpt_job_free(NULL);
}

static void getters_of_null_give_nothing(void)
{
    size_t size = 99;

    CHECK(tfckpt_error_code(NULL) == TFCKPT_OK);
    CHECK(tfckpt_error_message(NULL) == NULL);
    CHECK(tfckpt_error_tensor_index(NULL) == -1);
    CHECK(tfckpt_error_key(NULL, &size) == NULL);
    CHECK(tfckpt_error_key(NULL, NULL) == NULL);
    CHECK(tfckpt_error_file(NULL) == NULL);
    CHECK(tfckpt_error_offset(NULL) == -1);

    CHECK(tfckpt_strings_num(NULL) == 0);
    CHECK(tfckpt_strings_get(NULL, 0, &size) == NULL);
    CHECK(tfckpt_strings_get(NULL, 0, NULL) == NULL);

    CHECK(tfckpt_reader_prefix(NULL) == NULL);
    CHECK(tfckpt_reader_num_shards(NULL) == 0);
    CHECK(tfckpt_entry_key(NULL, &size) == NULL);
    CHECK(tfckpt_entry_key(NULL, NULL) == NULL);
    CHECK(tfckpt_entry_code(NULL) == TFCKPT_OK);
    CHECK(tfckpt_entry_message(NULL) == NULL);
    CHECK(tfckpt_entry_dtype(NULL) == 0);
    CHECK(tfckpt_entry_rank(NULL) == 0);
    CHECK(tfckpt_entry_shape(NULL) == NULL);
    CHECK(tfckpt_entry_size(NULL) == 0);
    CHECK(tfckpt_entry_shard_id(NULL) == 0);
    CHECK(tfckpt_entry_offset(NULL) == 0);
    CHECK(tfckpt_entry_crc32c(NULL) == 0);
    CHECK(tfckpt_entry_num_slices(NULL) == 0);
    CHECK(tfckpt_entry_slice(NULL, 0) == NULL);
    CHECK(tfckpt_object_graph_num_tensors(NULL) == 0);
    CHECK(tfckpt_object_graph_key(NULL, 0, &size) == NULL && size == 0);
    CHECK(tfckpt_object_graph_key(NULL, 0, NULL) == NULL);
    CHECK(tfckpt_object_graph_full_name(NULL, 0, &size) == NULL);
    CHECK(tfckpt_object_graph_full_name(NULL, 0, NULL) == NULL);
    CHECK(tfckpt_object_graph_attribute(NULL, 0, &size) == NULL);
    CHECK(tfckpt_object_graph_attribute(NULL, 0, NULL) == NULL);
    CHECK(tfckpt_object_graph_key_of_name(NULL, "a", 1, &size) == NULL);
    CHECK(tfckpt_object_graph_key_of_name(NULL, NULL, 0, NULL) == NULL);
    CHECK(tfckpt_object_graph_key_of_path(NULL, "a", 1, &size) == NULL);
    CHECK(tfckpt_object_graph_key_of_path(NULL, NULL, 0, NULL) == NULL);
    CHECK(tfckpt_job_poll(NULL) == 1);
    CHECK(tfckpt_job_prefix(NULL) == NULL);
    CHECK(tfckpt_view_data(NULL) == NULL);
    CHECK(tfckpt_view_size(NULL) == 0);
    CHECK(tfckpt_buffer_data(NULL) == NULL);
    CHECK(tfckpt_buffer_size(NULL) == 0);

    CHECK(tfckpt_checkpoint_state_model_checkpoint_path(NULL) == NULL);
    CHECK(tfckpt_checkpoint_state_num_paths(NULL) == 0);
    CHECK(tfckpt_checkpoint_state_path(NULL, 0) == NULL);
    CHECK(tfckpt_checkpoint_state_num_timestamps(NULL) == 0);
    CHECK(tfckpt_checkpoint_state_timestamp(NULL, 0) == 0);
    CHECK(tfckpt_checkpoint_state_last_preserved_timestamp(NULL) == 0);

    CHECK(tfckpt_saver_num_last_checkpoints(NULL) == 0);
    CHECK(tfckpt_saver_last_checkpoint(NULL, 0) == NULL);
    CHECK(tfckpt_saver_last_checkpoint_time(NULL, 0) == 0);
}

static void initialisers(void)
{
    REFUSED_QUIETLY(tfckpt_tensor_init(NULL, sizeof(tfckpt_tensor)));
    REFUSED_QUIETLY(tfckpt_stats_init(NULL, sizeof(tfckpt_stats)));
    REFUSED_QUIETLY(tfckpt_context_options_init(NULL, sizeof(tfckpt_context_options)));
    REFUSED_QUIETLY(tfckpt_save_options_init(NULL, sizeof(tfckpt_save_options)));
    REFUSED_QUIETLY(tfckpt_restore_options_init(NULL, sizeof(tfckpt_restore_options)));
    REFUSED_QUIETLY(tfckpt_latest_options_init(NULL, sizeof(tfckpt_latest_options)));
    REFUSED_QUIETLY(tfckpt_merge_options_init(NULL, sizeof(tfckpt_merge_options)));
    REFUSED_QUIETLY(tfckpt_reader_options_init(NULL, sizeof(tfckpt_reader_options)));
    REFUSED_QUIETLY(tfckpt_verify_options_init(NULL, sizeof(tfckpt_verify_options)));
    REFUSED_QUIETLY(tfckpt_update_options_init(NULL, sizeof(tfckpt_update_options)));
    REFUSED_QUIETLY(tfckpt_remove_options_init(NULL, sizeof(tfckpt_remove_options)));
    REFUSED_QUIETLY(tfckpt_saveable_init(NULL, sizeof(tfckpt_saveable)));
    REFUSED_QUIETLY(tfckpt_saver_options_init(NULL, sizeof(tfckpt_saver_options)));
    REFUSED_QUIETLY(tfckpt_saver_save_options_init(NULL, sizeof(tfckpt_saver_save_options)));
}

static void context(void)
{
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;

    REFUSED(tfckpt_context_new(NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_context_new(NULL, NULL, NULL));
    CHECK(tfckpt_context_new(NULL, &context, NULL) == TFCKPT_OK);
    CHECK(context != NULL);
    tfckpt_context_free(context);
}

static void save_and_restore(const char *prefix, const tfckpt_tensor *tensor)
{
    tfckpt_error *error = NULL;
    char *prefix_out = &untouched;
    tfckpt_code code = 99;

    REFUSED(tfckpt_save(NULL, tensor, 1, NULL, &prefix_out, &error));
    REFUSED(tfckpt_save(prefix, NULL, 1, NULL, &prefix_out, &error));
    REFUSED_QUIETLY(tfckpt_save(NULL, NULL, 1, NULL, NULL, NULL));
    IS_UNTOUCHED(prefix_out);
    CHECK(tfckpt_save(prefix, tensor, 1, NULL, NULL, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_restore(NULL, tensor, 1, NULL, NULL, &error));
    REFUSED(tfckpt_restore(prefix, NULL, 1, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_restore(NULL, NULL, 1, NULL, NULL, NULL));
    REFUSED(tfckpt_restore(NULL, tensor, 1, NULL, &code, &error));
    CHECK(tfckpt_restore(prefix, tensor, 1, NULL, NULL, NULL) == TFCKPT_OK);
    CHECK_OK(tfckpt_restore(prefix, NULL, 0, NULL, NULL, &error), error); /* no tensors: nothing to point to */

    /* What `error` held before a call does not matter; success sets it to NULL. */
    error = UNTOUCHED(tfckpt_error);
    CHECK_OK(tfckpt_restore(prefix, tensor, 1, NULL, NULL, &error), error);
}

static void latest(const char *dir)
{
    tfckpt_error *error = NULL;
    char *prefix_out = &untouched;

    REFUSED(tfckpt_latest_checkpoint(NULL, NULL, &prefix_out, &error));
    REFUSED(tfckpt_latest_checkpoint(dir, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_latest_checkpoint(NULL, NULL, NULL, NULL));
    CHECK(tfckpt_latest_checkpoint(dir, NULL, &prefix_out, NULL) == TFCKPT_NOT_FOUND);
    IS_UNTOUCHED(prefix_out);
}

static void save_shard_and_merge(const char *prefix, const tfckpt_tensor *tensor)
{
    tfckpt_error *error = NULL;
    char *part = &untouched;
    const char *parts[2] = {NULL, NULL};

    REFUSED(tfckpt_save_shard(NULL, 0, 1, NULL, tensor, 1, NULL, &part, &error));
    REFUSED(tfckpt_save_shard(prefix, 0, 1, NULL, NULL, 1, NULL, &part, &error));
    REFUSED_QUIETLY(tfckpt_save_shard(NULL, 0, 1, NULL, NULL, 1, NULL, NULL, NULL));
    IS_UNTOUCHED(part);
    CHECK(tfckpt_save_shard(prefix, 0, 2, NULL, tensor, 1, NULL, NULL, NULL) == TFCKPT_OK);
    CHECK(tfckpt_save_shard(prefix, 0, 2, NULL, tensor, 1, NULL, &part, NULL) == TFCKPT_OK);

    parts[0] = part;
    REFUSED(tfckpt_merge(NULL, 1, prefix, NULL, &error));
    REFUSED(tfckpt_merge(NULL, 0, prefix, NULL, &error)); /* nothing to merge */
    REFUSED(tfckpt_merge(parts, 1, NULL, NULL, &error));
    REFUSED(tfckpt_merge(parts, 2, prefix, NULL, &error));
    REFUSED_QUIETLY(tfckpt_merge(NULL, 1, NULL, NULL, NULL));
    CHECK(tfckpt_merge(parts, 1, prefix, NULL, NULL) == TFCKPT_OK);
    tfckpt_string_free(part);
}

static void open_and_look_up(const char *prefix)
{
    tfckpt_reader *reader = UNTOUCHED(tfckpt_reader);
    tfckpt_entry *entry = UNTOUCHED(tfckpt_entry);
    tfckpt_entries *entries = UNTOUCHED(tfckpt_entries);
    const tfckpt_entry *next = UNTOUCHED(tfckpt_entry);
    tfckpt_error *error = NULL;
    size_t num = 99;

    REFUSED(tfckpt_reader_open(NULL, NULL, &reader, &error));
    REFUSED(tfckpt_reader_open(prefix, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_open(NULL, NULL, NULL, NULL));
    IS_UNTOUCHED(reader);
    CHECK(tfckpt_reader_open(prefix, NULL, &reader, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_reader_num_tensors(NULL, &num, &error));
    REFUSED(tfckpt_reader_num_tensors(reader, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_num_tensors(NULL, &num, NULL));
    CHECK(num == 99);
    CHECK(tfckpt_reader_num_tensors(reader, &num, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_reader_find(NULL, "a", 1, &entry, &error));
    REFUSED(tfckpt_reader_find(reader, NULL, 1, &entry, &error));
    REFUSED(tfckpt_reader_find(reader, "a", 1, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_find(NULL, "a", 1, &entry, NULL));
    IS_UNTOUCHED(entry);
    CHECK(tfckpt_reader_find(reader, "a", 1, &entry, NULL) == TFCKPT_OK);
    CHECK(tfckpt_entry_key(entry, NULL) != NULL); /* the size may go unasked */
    tfckpt_entry_free(entry);

    REFUSED(tfckpt_reader_entries(NULL, &entries, &error));
    REFUSED(tfckpt_reader_entries(reader, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_entries(NULL, &entries, NULL));
    IS_UNTOUCHED(entries);
    CHECK(tfckpt_reader_entries(reader, &entries, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_entries_next(NULL, &next, &error));
    REFUSED(tfckpt_entries_next(entries, NULL, &error));
    REFUSED_QUIETLY(tfckpt_entries_next(NULL, &next, NULL));
    IS_UNTOUCHED(next);
    CHECK(tfckpt_entries_next(entries, &next, NULL) == TFCKPT_OK);
    CHECK(next != NULL); /* the refused calls did not move on */
    tfckpt_entries_free(entries);
    tfckpt_reader_free(reader);
}

static void read_with_a_reader(const char *prefix, const tfckpt_tensor *tensor)
{
    tfckpt_reader *reader = NULL;
    tfckpt_view *view = UNTOUCHED(tfckpt_view);
    tfckpt_error *error = NULL;
    uint64_t num_damaged = 99;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    REFUSED(tfckpt_reader_restore(NULL, tensor, 1, NULL, NULL, &error));
    REFUSED(tfckpt_reader_restore(reader, NULL, 1, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_restore(NULL, tensor, 1, NULL, NULL, NULL));
    CHECK(tfckpt_reader_restore(reader, tensor, 1, NULL, NULL, NULL) == TFCKPT_OK);
    CHECK_OK(tfckpt_reader_restore(reader, NULL, 0, NULL, NULL, &error), error);

    REFUSED(tfckpt_reader_view(NULL, "a", 1, 0, &view, &error));
    REFUSED(tfckpt_reader_view(reader, NULL, 1, 0, &view, &error));
    REFUSED(tfckpt_reader_view(reader, "a", 1, 0, NULL, &error));
    REFUSED(tfckpt_buffer_new(8, NULL, &error));
    REFUSED_QUIETLY(tfckpt_buffer_new(8, NULL, NULL));
    REFUSED_QUIETLY(tfckpt_reader_view(NULL, "a", 1, 0, &view, NULL));
    IS_UNTOUCHED(view);
    CHECK(tfckpt_reader_view(reader, "a", 1, 0, &view, NULL) == TFCKPT_OK);
    tfckpt_view_free(view);

    REFUSED(tfckpt_reader_verify(NULL, NULL, &num_damaged, &error));
    REFUSED_QUIETLY(tfckpt_reader_verify(NULL, NULL, &num_damaged, NULL));
    CHECK(num_damaged == 99);
    CHECK(tfckpt_reader_verify(reader, NULL, NULL, NULL) == TFCKPT_OK);
    tfckpt_reader_free(reader);
}

static void object_graph(const char *prefix)
{
    static const char GRAPH[] = "\x0a\x00"; /* a root and nothing else */
    tfckpt_string string = {GRAPH, sizeof GRAPH - 1};
    tfckpt_tensor tensor =
        host_tensor("_CHECKPOINTABLE_OBJECT_GRAPH", TFCKPT_DTYPE_STRING, 0, NULL, &string, sizeof string);
    tfckpt_reader *reader = NULL;
    tfckpt_object_graph *graph = UNTOUCHED(tfckpt_object_graph);
    tfckpt_error *error = NULL;
    char *text = &untouched;

    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    REFUSED(tfckpt_reader_debug_string(NULL, &text, &error));
    REFUSED(tfckpt_reader_debug_string(reader, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_debug_string(NULL, &text, NULL));
    IS_UNTOUCHED(text);
    CHECK(tfckpt_reader_debug_string(reader, &text, NULL) == TFCKPT_OK);
    tfckpt_string_free(text);

    REFUSED(tfckpt_reader_object_graph(NULL, &graph, &error));
    REFUSED(tfckpt_reader_object_graph(reader, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_object_graph(NULL, &graph, NULL));
    IS_UNTOUCHED(graph);
    CHECK(tfckpt_reader_object_graph(reader, &graph, NULL) == TFCKPT_OK);
    text = &untouched;
    REFUSED(tfckpt_object_graph_path(NULL, 0, &text, &error));
    REFUSED(tfckpt_object_graph_path(graph, 0, NULL, &error));
    REFUSED_QUIETLY(tfckpt_object_graph_path(NULL, 0, &text, NULL));
    CHECK(tfckpt_object_graph_path(graph, 0, &text, NULL) == TFCKPT_OUT_OF_RANGE);
    IS_UNTOUCHED(text);
    CHECK(tfckpt_object_graph_key_of_name(graph, NULL, 1, NULL) == NULL);
    CHECK(tfckpt_object_graph_key_of_path(graph, NULL, 1, NULL) == NULL);
    CHECK(tfckpt_object_graph_key_of_path(graph, NULL, 0, NULL) == NULL); /* the root's path; it has no value */
    tfckpt_object_graph_free(graph);
    tfckpt_reader_free(reader);
}

static void checkpoint_state(const char *dir, const char *prefix)
{
    const char *prefixes[2] = {prefix, NULL};
    tfckpt_checkpoint_state *state = UNTOUCHED(tfckpt_checkpoint_state);
    tfckpt_update_options options = TFCKPT_UPDATE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    double mtimes[2] = {-1, -1};
    int32_t exists = 99;
    size_t num = 99;

    REFUSED(tfckpt_get_checkpoint_state(NULL, NULL, &state, &error));
    REFUSED(tfckpt_get_checkpoint_state(dir, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_get_checkpoint_state(NULL, NULL, &state, NULL));
    CHECK(tfckpt_get_checkpoint_state(dir, NULL, &state, NULL) == TFCKPT_NOT_FOUND);
    IS_UNTOUCHED(state);

    REFUSED(tfckpt_update_checkpoint_state(NULL, prefix, NULL, &error));
    REFUSED(tfckpt_update_checkpoint_state(dir, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_update_checkpoint_state(NULL, prefix, NULL, NULL));
    options.num_paths = 1; /* but no array of paths */
    REFUSED(tfckpt_update_checkpoint_state(dir, prefix, &options, &error));
    options.num_paths = 2;
    options.all_model_checkpoint_paths = prefixes; /* the second one is NULL */
    REFUSED(tfckpt_update_checkpoint_state(dir, prefix, &options, &error));
    options.num_paths = 1;
    options.num_timestamps = 1; /* but no array of timestamps */
    REFUSED(tfckpt_update_checkpoint_state(dir, prefix, &options, &error));
    CHECK(tfckpt_get_checkpoint_state(dir, NULL, &state, NULL) == TFCKPT_NOT_FOUND);

    REFUSED(tfckpt_checkpoint_exists(NULL, &exists, &error));
    REFUSED(tfckpt_checkpoint_exists(prefix, NULL, &error));
    REFUSED_QUIETLY(tfckpt_checkpoint_exists(NULL, &exists, NULL));
    CHECK(exists == 99);

    REFUSED(tfckpt_get_checkpoint_mtimes(NULL, 1, mtimes, &num, &error));
    REFUSED(tfckpt_get_checkpoint_mtimes(prefixes, 2, mtimes, &num, &error));
    REFUSED(tfckpt_get_checkpoint_mtimes(prefixes, 1, NULL, &num, &error));
    REFUSED(tfckpt_get_checkpoint_mtimes(prefixes, 1, mtimes, NULL, &error));
    REFUSED_QUIETLY(tfckpt_get_checkpoint_mtimes(NULL, 1, mtimes, &num, NULL));
    CHECK(num == 99 && mtimes[0] == -1 && mtimes[1] == -1);
    CHECK_OK(tfckpt_get_checkpoint_mtimes(NULL, 0, NULL, &num, &error), error);
    CHECK(num == 0);

    REFUSED(tfckpt_remove_checkpoint(NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_remove_checkpoint(NULL, NULL, NULL));
    CHECK(tfckpt_checkpoint_exists(prefix, &exists, NULL) == TFCKPT_OK);
    CHECK(exists == 1); /* nothing was removed */
    CHECK(tfckpt_update_checkpoint_state(dir, prefix, NULL, NULL) == TFCKPT_OK);
    CHECK(tfckpt_remove_checkpoint(prefix, NULL, NULL) == TFCKPT_OK);
}

static void saver(const char *prefix, const tfckpt_tensor *tensor)
{
    const char *paths[2];
    double times[] = {1, 2};
    tfckpt_saver *saver = UNTOUCHED(tfckpt_saver);
    tfckpt_strings *definition = UNTOUCHED(tfckpt_strings);
    tfckpt_error *error = NULL;
    char *path = &untouched;

    paths[0] = prefix;
    paths[1] = NULL;
    REFUSED(tfckpt_saver_create(NULL, 1, NULL, 0, NULL, &saver, &error));
    REFUSED(tfckpt_saver_create(tensor, 1, NULL, 1, NULL, &saver, &error));
    REFUSED(tfckpt_saver_create(tensor, 1, NULL, 0, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_saver_create(NULL, 1, NULL, 0, NULL, &saver, NULL));
    IS_UNTOUCHED(saver);
    CHECK(tfckpt_saver_create(tensor, 1, NULL, 0, NULL, &saver, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_saver_build(NULL, NULL, 0, NULL, 0, &error));
    REFUSED(tfckpt_saver_build(saver, NULL, 1, NULL, 0, &error));
    REFUSED(tfckpt_saver_build(saver, NULL, 0, NULL, 1, &error));
    REFUSED_QUIETLY(tfckpt_saver_build(NULL, NULL, 0, NULL, 0, NULL));
    REFUSED(tfckpt_saver_bind(NULL, tensor, 1, &error));
    REFUSED(tfckpt_saver_bind(saver, NULL, 1, &error));
    REFUSED_QUIETLY(tfckpt_saver_bind(NULL, tensor, 1, NULL));

    REFUSED(tfckpt_saver_save(NULL, prefix, NULL, &path, &error));
    REFUSED_QUIETLY(tfckpt_saver_save(NULL, prefix, NULL, &path, NULL));
    IS_UNTOUCHED(path);
    CHECK(tfckpt_saver_save(saver, prefix, NULL, NULL, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_saver_restore(NULL, prefix, NULL, &error));
    REFUSED(tfckpt_saver_restore(saver, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_saver_restore(saver, NULL, NULL, NULL));
    CHECK(tfckpt_saver_restore(saver, prefix, NULL, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_saver_set_last_checkpoints(NULL, paths, 1, &error));
    REFUSED(tfckpt_saver_set_last_checkpoints(saver, NULL, 1, &error));
    REFUSED(tfckpt_saver_set_last_checkpoints(saver, paths, 2, &error)); /* the second one is NULL */
    REFUSED_QUIETLY(tfckpt_saver_set_last_checkpoints(NULL, paths, 1, NULL));
    REFUSED(tfckpt_saver_set_last_checkpoints_with_time(NULL, paths, times, 1, &error));
    REFUSED(tfckpt_saver_set_last_checkpoints_with_time(saver, NULL, times, 1, &error));
    REFUSED(tfckpt_saver_set_last_checkpoints_with_time(saver, paths, NULL, 1, &error));
    REFUSED_QUIETLY(tfckpt_saver_set_last_checkpoints_with_time(NULL, paths, times, 1, NULL));
    REFUSED(tfckpt_saver_recover_last_checkpoints(NULL, paths, 1, &error));
    REFUSED(tfckpt_saver_recover_last_checkpoints(saver, NULL, 1, &error));
    REFUSED_QUIETLY(tfckpt_saver_recover_last_checkpoints(NULL, paths, 1, NULL));
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 1);
    CHECK(tfckpt_saver_set_last_checkpoints(saver, NULL, 0, NULL) == TFCKPT_OK);
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 0);

    REFUSED(tfckpt_saver_as_saver_def(NULL, &definition, &error));
    REFUSED(tfckpt_saver_as_saver_def(saver, NULL, &error));
    REFUSED_QUIETLY(tfckpt_saver_as_saver_def(NULL, &definition, NULL));
    IS_UNTOUCHED(definition);
    tfckpt_saver_free(saver);
}

static void jobs(const char *prefix, const tfckpt_tensor *tensor)
{
    tfckpt_job *job = UNTOUCHED(tfckpt_job);
    tfckpt_saver *saver = NULL;
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_progress progress = TFCKPT_PROGRESS_INIT;
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options restore_options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code code = -1;

    REFUSED(tfckpt_save_async(NULL, tensor, 1, NULL, &job, &error));
    REFUSED(tfckpt_save_async(prefix, NULL, 1, NULL, &job, &error));
    REFUSED(tfckpt_save_async(prefix, tensor, 1, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_save_async(NULL, tensor, 1, NULL, &job, NULL));
    options.stats = &stats; /* they would have to outlive the call */
    REFUSED(tfckpt_save_async(prefix, tensor, 1, &options, &job, &error));
    IS_UNTOUCHED(job);
    CHECK(tfckpt_save_async(prefix, tensor, 1, NULL, &job, NULL) == TFCKPT_OK);

    REFUSED(tfckpt_job_wait(NULL, 0, &error));
    REFUSED_QUIETLY(tfckpt_job_wait(NULL, -1, NULL));
    CHECK(tfckpt_job_wait(job, -1, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_job_wait_snapshot(NULL, 0, &error));
    REFUSED_QUIETLY(tfckpt_job_wait_snapshot(NULL, 0, NULL));
    CHECK(tfckpt_job_wait_snapshot(job, 0, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_job_wait_tensor(NULL, 0, 0, &error));
    REFUSED_QUIETLY(tfckpt_job_wait_tensor(job, 0, 0, NULL)); /* a save hands no tensors out */
    REFUSED(tfckpt_job_progress(NULL, &progress, &error));
    REFUSED(tfckpt_job_progress(job, NULL, &error));
    REFUSED_QUIETLY(tfckpt_job_progress(NULL, &progress, NULL));
    REFUSED(tfckpt_job_stats(NULL, &stats, &error));
    REFUSED(tfckpt_job_stats(job, NULL, &error));
    REFUSED_QUIETLY(tfckpt_job_stats(NULL, &stats, NULL));
    progress.struct_size = stats.struct_size = 0;
    REFUSED(tfckpt_job_progress(job, &progress, &error));
    REFUSED(tfckpt_job_stats(job, &stats, &error));
    REFUSED(tfckpt_job_codes(NULL, &code, 1, &error));
    REFUSED(tfckpt_job_codes(job, &code, 1, &error)); /* it has none */
    CHECK(tfckpt_job_codes(job, NULL, 0, NULL) == TFCKPT_OK);
    tfckpt_job_free(job);

    job = UNTOUCHED(tfckpt_job);
    CHECK(tfckpt_saver_create(tensor, 1, NULL, 0, NULL, &saver, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_saver_save_async(NULL, prefix, NULL, &job, &error));
    REFUSED(tfckpt_saver_save_async(saver, prefix, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_saver_save_async(NULL, prefix, NULL, &job, NULL));
    IS_UNTOUCHED(job);
    CHECK(tfckpt_saver_save_async(saver, prefix, NULL, &job, NULL) == TFCKPT_OK);
    tfckpt_saver_free(saver);
    tfckpt_job_free(job);

    job = UNTOUCHED(tfckpt_job);
    REFUSED(tfckpt_restore_async(NULL, tensor, 1, NULL, &job, &error));
    REFUSED(tfckpt_restore_async(prefix, NULL, 1, NULL, &job, &error));
    REFUSED(tfckpt_restore_async(prefix, tensor, 1, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_restore_async(NULL, tensor, 1, NULL, &job, NULL));
    restore_options.stats = &stats;
    REFUSED(tfckpt_restore_async(prefix, tensor, 1, &restore_options, &job, &error));
    CHECK(tfckpt_reader_open(prefix, NULL, &reader, NULL) == TFCKPT_OK);
    REFUSED(tfckpt_reader_restore_async(NULL, tensor, 1, NULL, &job, &error));
    REFUSED(tfckpt_reader_restore_async(reader, NULL, 1, NULL, &job, &error));
    REFUSED(tfckpt_reader_restore_async(reader, tensor, 1, NULL, NULL, &error));
    REFUSED_QUIETLY(tfckpt_reader_restore_async(NULL, tensor, 1, NULL, &job, NULL));
    IS_UNTOUCHED(job);
    CHECK(tfckpt_reader_restore_async(reader, tensor, 1, NULL, &job, NULL) == TFCKPT_OK);
    tfckpt_reader_free(reader);
    REFUSED(tfckpt_job_codes(job, NULL, 1, &error));
    CHECK(tfckpt_job_wait(job, -1, NULL) == TFCKPT_OK);
    CHECK(tfckpt_job_codes(job, &code, 1, NULL) == TFCKPT_OK && code == TFCKPT_OK);
    tfckpt_job_free(job);
}

int main(int argc, char **argv)
{
    static const int64_t shape[] = {4};
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    float values[4] = {1, 2, 3, 4};
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, shape, values, sizeof values);

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "m");
    freeing_null_does_nothing();
    getters_of_null_give_nothing();
    initialisers();
    context();
    save_and_restore(prefix, &tensor);
    latest(dir);
    save_shard_and_merge(prefix, &tensor);
    open_and_look_up(prefix);
    read_with_a_reader(prefix, &tensor);
    checkpoint_state(dir, prefix);
    saver(prefix, &tensor);
    jobs(prefix, &tensor);
    path_in(prefix, dir, "objects");
    object_graph(prefix);
    CHECK(values[0] == 1 && values[3] == 4);
    remove_scratch_folder(dir);
    return 0;
}
