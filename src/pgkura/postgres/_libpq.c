/* The data of a running COPY out of libpq and into it, much to a call and without the interpreter's lock: the compiled
 * form of what libpq.py does by the driver. libpq is the one that the driver has loaded; what is called is given by its
 * addresses.
 *
 * PostgreSQL manual, "Functions Associated with the COPY Command": PQgetCopyData gives a row in memory of its own, 0 when
 * none is whole yet, -1 at the end, -2 after an error. On a connection that does not block PQflush gives 1 when the
 * socket takes no more now, and PQputCopyData 0 when libpq has no room: it makes room without end, so that does not come.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int (*get_copy_data)(void *connection, char **row, int async);
typedef int (*consume_input)(void *connection);
typedef void (*free_memory)(void *row);
typedef int (*put_copy_data)(void *connection, const char *data, int size);
typedef int (*flush_output)(void *connection);

struct row {
    char *data;
    int64_t size;
};

struct rows {
    struct row *all;
    size_t count, room;
    int64_t bytes;
};

enum { WAIT = 0, FAILED = -2, NO_MEMORY = -3 };

static int
append(struct rows *rows, char *data, int size)
{
    if (rows->count == rows->room) {
        size_t room = rows->room ? rows->room * 2 : 1024;
        struct row *all = realloc(rows->all, room * sizeof *all);
        if (all == NULL) {
            return 0;
        }
        rows->all = all;
        rows->room = room;
    }
    rows->all[rows->count++] = (struct row){data, size};
    rows->bytes += size;
    return 1;
}

/* All that is there, or so many bytes of it. 1: there may be more; else as the constants and PQgetCopyData say. */
static int
gather(void *connection, get_copy_data get, consume_input consume, free_memory release, int64_t most, struct rows *rows)
{
    int fresh = 0;

    while (rows->bytes < most) {
        char *data = NULL;
        int size = get(connection, &data, 1);
        if (size > 0) {
            if (!append(rows, data, size)) {
                release(data);
                return NO_MEMORY;
            }
            fresh = 0;
        }
        else if (size < 0) {
            return size;
        }
        else if (fresh) {
            return WAIT; /* the socket was looked at, and no row has become whole */
        }
        else if (!consume(connection)) {
            return FAILED;
        }
        else {
            fresh = 1;
        }
    }
    return 1;
}

static PyObject *
receive(PyObject *module, PyObject *args)
{
    Py_ssize_t connection, get, consume, release, most;
    struct rows rows = {NULL, 0, 0, 0};
    PyObject *data = NULL, *sizes = NULL, *found = NULL;
    int state;

    if (!PyArg_ParseTuple(args, "nnnnn", &connection, &get, &consume, &release, &most)) {
        return NULL;
    }
    free_memory give_back = (free_memory)release;
    Py_BEGIN_ALLOW_THREADS
    state = gather((void *)connection, (get_copy_data)get, (consume_input)consume, give_back, most, &rows);
    Py_END_ALLOW_THREADS
    if (state == NO_MEMORY) {
        PyErr_NoMemory();
        goto end;
    }
    data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)rows.bytes);
    sizes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(rows.count * sizeof(int64_t)));
    if (data == NULL || sizes == NULL) {
        goto end;
    }
    char *into = PyBytes_AsString(data), *numbers = PyBytes_AsString(sizes);
    Py_BEGIN_ALLOW_THREADS
    for (size_t n = 0; n < rows.count; n++) {
        memcpy(into, rows.all[n].data, (size_t)rows.all[n].size);
        memcpy(numbers, &rows.all[n].size, sizeof(int64_t));
        into += rows.all[n].size;
        numbers += sizeof(int64_t);
        give_back(rows.all[n].data);
    }
    rows.count = 0;
    Py_END_ALLOW_THREADS
    found = Py_BuildValue("(OOi)", data, sizes, state);
end:
    for (size_t n = 0; n < rows.count; n++) {
        give_back(rows.all[n].data);
    }
    free(rows.all);
    Py_XDECREF(data);
    Py_XDECREF(sizes);
    return found;
}

/* From `at` on, a piece at a time, each gone before the next: where it stopped. 1: all is gone; 0 wait; -1 an error. */
static int
hand_over(void *connection, put_copy_data put, flush_output flush, const char *data, size_t size, size_t piece, size_t *at)
{
    for (;;) {
        int left = flush(connection);
        if (left != 0) {
            return left < 0 ? -1 : WAIT;
        }
        if (*at == size) {
            return 1;
        }
        size_t next = size - *at < piece ? size - *at : piece;
        int put_all = put(connection, data + *at, (int)next);
        if (put_all <= 0) {
            return put_all < 0 ? -1 : WAIT;
        }
        *at += next;
    }
}

static PyObject *
send_data(PyObject *module, PyObject *args)
{
    Py_ssize_t connection, put, flush, piece, at;
    Py_buffer source;
    int state;

    if (!PyArg_ParseTuple(args, "nnny*nn", &connection, &put, &flush, &source, &at, &piece)) {
        return NULL;
    }
    if (at < 0 || at > source.len || piece <= 0 || piece > 1 << 30) {
        PyBuffer_Release(&source);
        PyErr_SetString(PyExc_ValueError, "a place beyond the data, or a piece of no size");
        return NULL;
    }
    size_t done = (size_t)at;
    Py_BEGIN_ALLOW_THREADS
    state = hand_over((void *)connection, (put_copy_data)put, (flush_output)flush, source.buf, (size_t)source.len,
                      (size_t)piece, &done);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&source);
    return Py_BuildValue("(ni)", (Py_ssize_t)done, state);
}

static PyMethodDef methods[] = {
    {"receive", receive, METH_VARARGS,
     "receive(connection, PQgetCopyData, PQconsumeInput, PQfreemem, most) -> (rows, their sizes as int64, state). All "
     "are addresses. state: 1 there may be more, 0 wait for the socket, -1 the end, -2 an error. Raises MemoryError."},
    {"send", send_data, METH_VARARGS,
     "send(connection, PQputCopyData, PQflush, data, at, piece) -> (where it stopped, state). state: 1 all was sent, 0 "
     "wait for the socket and call again, -1 an error. Raises ValueError."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_libpq",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__libpq(void)
{
    return PyModuleDef_Init(&definition);
}
