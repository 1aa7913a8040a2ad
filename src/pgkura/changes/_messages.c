/* Messages of the change log, cut and taken apart: the compiled form of messages.take_in_python, which says what each
 * is. Nothing is read beyond the buffer, whatever stands in it.
 *
 * A frame is a length in four bytes, a position in eight, and the message (segment.py). Of messages only Insert, Update
 * and Delete are taken apart (PostgreSQL manual, "Logical Replication Message Formats"); others are given as they are.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

enum { FRAME = 12, CHANGE = 6, FIELDS = 6 };

typedef struct {
    const unsigned char *at, *end;
} Bytes;

static size_t
left(const Bytes *from)
{
    return (size_t)(from->end - from->at);
}

static uint32_t
number_at(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static PyObject *
damaged(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static PyObject *
same(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* One value: text, NULL, or the mark of one that is not told. */
static PyObject *
take_value(Bytes *from, PyObject *unchanged)
{
    if (left(from) < 1) {
        return damaged("it is cut short");
    }
    switch (*from->at++) {
    case 'n':
        return same(Py_None);
    case 'u':
        return same(unchanged);
    case 't':
        break;
    default:
        return damaged("a value of an unknown kind");
    }
    if (left(from) < 4) {
        return damaged("it is cut short");
    }
    size_t size = number_at(from->at);
    from->at += 4;
    if (size > left(from)) {
        return damaged("it is cut short");
    }
    const unsigned char *value = from->at;
    from->at += size;
    return PyBytes_FromStringAndSize((const char *)value, (Py_ssize_t)size);
}

static PyObject *
take_row(Bytes *from, PyObject *unchanged)
{
    if (left(from) < 2) {
        return damaged("it is cut short");
    }
    Py_ssize_t count = (Py_ssize_t)from->at[0] << 8 | (Py_ssize_t)from->at[1];
    from->at += 2;
    PyObject *row = PyTuple_New(count);
    for (Py_ssize_t n = 0; row != NULL && n < count; n++) {
        PyObject *value = take_value(from, unchanged);
        if (value == NULL) {
            Py_DECREF(row);
            return NULL;
        }
        PyTuple_SetItem(row, n, value);
    }
    return row;
}

/* Rows before and after of a message that is at least CHANGE long; -1 with an error set. */
static int
take_rows(Bytes from, PyObject *unchanged, PyObject **old, PyObject **new)
{
    unsigned char kind = *from.at, tag = from.at[CHANGE - 1];

    from.at += CHANGE;
    if ((tag == 'K' || tag == 'O') && kind != 'I') {
        if ((*old = take_row(&from, unchanged)) == NULL) {
            return -1;
        }
        if (kind == 'D') {
            return 0;
        }
        if (left(&from) < 1) {
            damaged("it is cut short");
            return -1;
        }
        tag = *from.at++;
    }
    if (tag != 'N' || kind == 'D') {
        damaged("an update or insert without a row");
        return -1;
    }
    return (*new = take_row(&from, unchanged)) == NULL ? -1 : 0;
}

/* (kind, relation, old, new, whole, size) */
static PyObject *
take_change(Bytes from, PyObject *unchanged)
{
    PyObject *old = NULL, *new = NULL;

    if (left(&from) < CHANGE) {
        return damaged("it is cut short");
    }
    if (take_rows(from, unchanged, &old, &new) < 0) {
        Py_XDECREF(old);
        Py_XDECREF(new);
        return NULL;
    }
    PyObject *fields[FIELDS] = {
        PyLong_FromLong(from.at[0]),
        PyLong_FromUnsignedLong(number_at(from.at + 1)),
        old != NULL ? old : same(Py_None),
        new != NULL ? new : same(Py_None),
        PyBool_FromLong(old != NULL && from.at[CHANGE - 1] == 'O'),
        PyLong_FromSize_t(left(&from)),
    };
    PyObject *change = PyTuple_New(FIELDS);
    int whole = change != NULL;
    for (int n = 0; n < FIELDS; n++) {
        whole = whole && fields[n] != NULL;
        if (change != NULL) {
            PyTuple_SetItem(change, n, fields[n]);
        }
        else {
            Py_XDECREF(fields[n]);
        }
    }
    if (!whole) {
        Py_XDECREF(change);
        return NULL;
    }
    return change;
}

static PyObject *
take_message(Bytes from, PyObject *unchanged)
{
    if (left(&from) == 0) {
        return damaged("an empty message");
    }
    switch (*from.at) {
    case 'I':
    case 'U':
    case 'D':
        return take_change(from, unchanged);
    default:
        return PyBytes_FromStringAndSize((const char *)from.at, (Py_ssize_t)left(&from));
    }
}

static PyObject *
take_all(Bytes *from, PyObject *unchanged)
{
    PyObject *found = PyList_New(0);

    while (found != NULL && left(from) >= FRAME) {
        size_t size = number_at(from->at);
        if (size > left(from) - FRAME) {
            break;
        }
        const unsigned char *begin = from->at + FRAME;
        PyObject *message = take_message((Bytes){begin, begin + size}, unchanged);
        if (message == NULL || PyList_Append(found, message) < 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(message);
        from->at = begin + size;
    }
    return found;
}

static PyObject *
take(PyObject *module, PyObject *arguments)
{
    Py_buffer source;
    PyObject *unchanged;

    if (!PyArg_ParseTuple(arguments, "y*O", &source, &unchanged)) {
        return NULL;
    }
    const unsigned char *begin = source.buf;
    Bytes from = {begin, begin + source.len};
    PyObject *found = take_all(&from, unchanged);
    Py_ssize_t stop = from.at - begin;
    PyBuffer_Release(&source);
    return found != NULL ? Py_BuildValue("(Nn)", found, stop) : NULL;
}

static PyMethodDef methods[] = {
    {"take", take, METH_VARARGS,
     "take(buffer, unchanged) -> (messages, where the next frame begins). Raises ValueError."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_messages",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__messages(void)
{
    return PyModuleDef_Init(&definition);
}
