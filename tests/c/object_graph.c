/* Restores a variable of a TF2 checkpoint, in which keys are paths through objects, by the name that tf.train.Saver
 * knows it by, and by a path that is not the one in the key. */
#include "check.h"

static const int64_t SHAPE[] = {2};

/* What tf.train.Checkpoint writes for a root with two edges, "net" and "x.y", to one variable named "scope/w". */
static const char GRAPH[] = "\x0a\x12" "\x0a\x07\x08\x01\x12\x03" "net" "\x0a\x07\x08\x01\x12\x03" "x.y"
                            "\x0a\x38" "\x12\x36" "\x0a\x0e" "VARIABLE_VALUE" "\x12\x07" "scope/w"
                            "\x1a\x1b" "net/.ATTRIBUTES/OBJECT_DATA";

static void save_what_tf2_saves(const char *prefix)
{
    tfckpt_string graph = {GRAPH, sizeof GRAPH - 1};
    float values[2] = {1.5f, 2.5f};
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    tensors[0] = host_tensor("_CHECKPOINTABLE_OBJECT_GRAPH", TFCKPT_DTYPE_STRING, 0, NULL, &graph, sizeof graph);
    tensors[1] = host_tensor("net/.ATTRIBUTES/OBJECT_DATA", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    CHECK_OK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), error);
}

static int is_text(const char *string, size_t size, const char *text)
{
    return string != NULL && size == strlen(text) && memcmp(string, text, size) == 0;
}

static void restore_by_name(const char *prefix)
{
    tfckpt_reader *reader = NULL;
    tfckpt_object_graph *graph = NULL;
    tfckpt_error *error = NULL;
    float values[2] = {0, 0};
    tfckpt_tensor tensor = host_tensor("", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    CHECK_OK(tfckpt_reader_object_graph(reader, &graph, &error), error);
    tensor.key = tfckpt_object_graph_key_of_name(graph, "scope/w", strlen("scope/w"), &tensor.key_size);
    CHECK(is_text(tensor.key, tensor.key_size, "net/.ATTRIBUTES/OBJECT_DATA"));
    CHECK_OK(tfckpt_reader_restore(reader, &tensor, 1, NULL, NULL, &error), error);
    CHECK(values[0] == 1.5f && values[1] == 2.5f);
    tfckpt_reader_free(reader);

    /* The graph does not need the reader. Both paths lead to the variable; a dot in a name is doubled. */
    tensor.key = tfckpt_object_graph_key_of_path(graph, "net", 3, NULL);
    CHECK(tensor.key != NULL);
    CHECK(tfckpt_object_graph_key_of_path(graph, "x..y", 4, NULL) == tensor.key);
    CHECK(tfckpt_object_graph_key_of_path(graph, "x.y", 3, &tensor.key_size) == NULL && tensor.key_size == 0);
    CHECK(tfckpt_object_graph_key_of_name(graph, "net", 3, NULL) == NULL);
    tfckpt_object_graph_free(graph);
}

static void list_tensors(const char *prefix)
{
    tfckpt_reader *reader = NULL;
    tfckpt_object_graph *graph = NULL;
    tfckpt_error *error = NULL;
    const char *string;
    char *path = NULL, *lines = NULL;
    size_t size = 0;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    CHECK_OK(tfckpt_reader_debug_string(reader, &lines, &error), error);
    CHECK(strcmp(lines, "_CHECKPOINTABLE_OBJECT_GRAPH (DT_STRING) []\n"
                        "net/.ATTRIBUTES/OBJECT_DATA (DT_FLOAT) [2]\n") == 0);
    tfckpt_string_free(lines);

    CHECK_OK(tfckpt_reader_object_graph(reader, &graph, &error), error);
    CHECK(tfckpt_object_graph_num_tensors(graph) == 1);
    string = tfckpt_object_graph_key(graph, 0, &size);
    CHECK(is_text(string, size, "net/.ATTRIBUTES/OBJECT_DATA"));
    string = tfckpt_object_graph_full_name(graph, 0, &size);
    CHECK(is_text(string, size, "scope/w"));
    string = tfckpt_object_graph_attribute(graph, 0, &size);
    CHECK(is_text(string, size, "VARIABLE_VALUE"));
    CHECK_OK(tfckpt_object_graph_path(graph, 0, &path, &error), error);
    CHECK(strcmp(path, "net") == 0);
    tfckpt_string_free(path);
    CHECK(tfckpt_object_graph_key(graph, 1, &size) == NULL && size == 0);
    CHECK_FAILS(tfckpt_object_graph_path(graph, 1, &path, &error), TFCKPT_OUT_OF_RANGE, error, "num_tensors=1");
    tfckpt_object_graph_free(graph);
    tfckpt_reader_free(reader);
}

static void a_checkpoint_of_names_has_none(const char *prefix)
{
    float values[2] = {1, 2};
    tfckpt_tensor tensor = host_tensor("scope/w", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tfckpt_reader *reader = NULL;
    tfckpt_object_graph *graph = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    CHECK_FAILS(tfckpt_reader_object_graph(reader, &graph, &error), TFCKPT_NOT_FOUND, error, "no object graph");
    CHECK(graph == NULL);
    tfckpt_reader_free(reader);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "ckpt-1");
    save_what_tf2_saves(prefix);
    restore_by_name(prefix);
    list_tensors(prefix);
    a_checkpoint_of_names_has_none(prefix);
    remove_scratch_folder(dir);
    return 0;
}
