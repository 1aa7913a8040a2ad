/* CopyData messages, cut and unpacked: the compiled form of messages.cut and messages.unpack, which do the same with
 * arrays where this could not be built. Nothing is read beyond the buffer, whatever stands in it.
 *
 * PostgreSQL manual, "Message Formats": 'd', a length in four bytes that counts itself, and one row.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { HEADER = 5 };

static size_t
length_at(const unsigned char *at)
{
    return (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | (size_t)at[4];
}

/* Whole messages from the front: how many, where they end; -1 for one that is shorter than its own length. */
static Py_ssize_t
count_messages(const unsigned char *from, size_t size, size_t *stop)
{
    Py_ssize_t count = 0;
    size_t at = 0;

    while (size - at >= HEADER && from[at] == 'd') {
        size_t length = length_at(from + at);
        if (length < HEADER - 1) {
            return -1;
        }
        if (length + 1 > size - at) {
            break;
        }
        at += length + 1;
        count++;
    }
    *stop = at;
    return count;
}

static void
copy_rows(const unsigned char *from, Py_ssize_t count, char *rows, char *sizes)
{
    for (; count > 0; count--) {
        size_t size = length_at(from) - (HEADER - 1);
        int64_t written = (int64_t)size;
        memcpy(rows, from + HEADER, size);
        memcpy(sizes, &written, sizeof written);
        rows += size;
        sizes += sizeof written;
        from += HEADER + size;
    }
}

static PyObject *
take(PyObject *module, PyObject *view)
{
    Py_buffer source;
    Py_ssize_t count;
    size_t stop = 0;
    PyObject *rows = NULL, *sizes = NULL, *found = NULL;

    if (PyObject_GetBuffer(view, &source, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const unsigned char *from = source.buf;
    Py_BEGIN_ALLOW_THREADS
    count = count_messages(from, (size_t)source.len, &stop);
    Py_END_ALLOW_THREADS
    if (count < 0) {
        PyErr_SetString(PyExc_ValueError, "a message that is shorter than its own length");
        goto end;
    }
    rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)stop - count * HEADER);
    sizes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    if (rows == NULL || sizes == NULL) {
        goto end;
    }
    char *into = PyBytes_AsString(rows), *numbers = PyBytes_AsString(sizes);
    Py_BEGIN_ALLOW_THREADS
    copy_rows(from, count, into, numbers);
    Py_END_ALLOW_THREADS
    found = Py_BuildValue("(OOn)", rows, sizes, (Py_ssize_t)stop);
end:
    Py_XDECREF(rows);
    Py_XDECREF(sizes);
    PyBuffer_Release(&source);
    return found;
}

static PyMethodDef methods[] = {
    {"take", take, METH_O,
     "take(buffer) -> (rows, their sizes as int64, where the next message begins). Raises ValueError."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_rows",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__rows(void)
{
    return PyModuleDef_Init(&definition);
}
