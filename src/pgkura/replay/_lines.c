/* Rows as lines of COPY text: the compiled form of lines.write_in_python.
 *
 * PostgreSQL manual, COPY, "Text Format": fields between tabs, NULL as \N; a backslash and the three bytes that would
 * end a field or a line are written with a backslash before.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { ROOM = 4096 };

typedef struct {
    char *bytes;
    size_t size, room;
} Lines;

/* Room for so many bytes more; -1 with an error set. */
static int
reserve(Lines *lines, size_t more)
{
    if (more <= lines->room - lines->size) {
        return 0;
    }
    size_t room = lines->room + more + lines->room / 2 + ROOM;
    char *bytes = PyMem_Realloc(lines->bytes, room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    lines->bytes = bytes;
    lines->room = room;
    return 0;
}

static size_t
count_special(const char *from, size_t size)
{
    size_t count = 0;
    for (size_t n = 0; n < size; n++) {
        count += (from[n] == '\\') | (from[n] == '\n') | (from[n] == '\t') | (from[n] == '\r');
    }
    return count;
}

static void
copy_escaped(char *into, const char *from, size_t size)
{
    for (size_t n = 0; n < size; n++) {
        char letter = from[n];
        switch (letter) {
        case '\n': letter = 'n'; break;
        case '\t': letter = 't'; break;
        case '\r': letter = 'r'; break;
        case '\\': break;
        default: *into++ = letter; continue;
        }
        *into++ = '\\';
        *into++ = letter;
    }
}

/* One value and a tab. */
static int
write_value(Lines *lines, PyObject *value)
{
    char *from = "\\N";
    Py_ssize_t size = 2;
    size_t special = 0;

    if (value != Py_None) {
        if (!PyBytes_Check(value)) {
            PyErr_SetString(PyExc_ValueError, "a value that is not told");
            return -1;
        }
        if (PyBytes_AsStringAndSize(value, &from, &size) < 0) {
            return -1;
        }
        special = count_special(from, (size_t)size);
    }
    if (reserve(lines, (size_t)size + special + 1) < 0) {
        return -1;
    }
    char *into = lines->bytes + lines->size;
    if (special) {
        copy_escaped(into, from, (size_t)size);
    }
    else {
        memcpy(into, from, (size_t)size);
    }
    into[(size_t)size + special] = '\t';
    lines->size += (size_t)size + special + 1;
    return 0;
}

static int
write_part(Lines *lines, PyObject *part)
{
    Py_ssize_t count = PyTuple_Size(part);

    for (Py_ssize_t n = 0; n < count; n++) {
        if (write_value(lines, PyTuple_GetItem(part, n)) < 0) {
            return -1;
        }
    }
    return count < 0 ? -1 : 0;
}

/* One line, of parts that stand side by side: the last tab becomes its end. */
static int
write_line(Lines *lines, PyObject *parts)
{
    size_t begin = lines->size;
    Py_ssize_t count = PyTuple_Size(parts);

    for (Py_ssize_t n = 0; n < count; n++) {
        if (write_part(lines, PyTuple_GetItem(parts, n)) < 0) {
            return -1;
        }
    }
    if (count < 0 || reserve(lines, 1) < 0) {
        return -1;
    }
    if (lines->size == begin) {
        lines->size++;
    }
    lines->bytes[lines->size - 1] = '\n';
    return 0;
}

static int
write_all(Lines *lines, PyObject *rows, size_t enough)
{
    while (lines->size < enough) {
        PyObject *parts = PyIter_Next(rows);
        if (parts == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        int failed = write_line(lines, parts);
        Py_DECREF(parts);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
write_lines(PyObject *module, PyObject *arguments)
{
    PyObject *rows, *found = NULL;
    Py_ssize_t enough;
    Lines lines = {NULL, 0, 0};

    if (!PyArg_ParseTuple(arguments, "On", &rows, &enough)) {
        return NULL;
    }
    if (!PyIter_Check(rows)) {
        PyErr_SetString(PyExc_TypeError, "an iterator is wanted");
        return NULL;
    }
    if (write_all(&lines, rows, enough > 0 ? (size_t)enough : 0) == 0) {
        found = PyBytes_FromStringAndSize(lines.bytes, (Py_ssize_t)lines.size);
    }
    PyMem_Free(lines.bytes);
    return found;
}

static PyMethodDef methods[] = {
    {"write", write_lines, METH_VARARGS,
     "write(iterator of tuples of rows, enough) -> lines, until there are enough bytes or no rows. Raises ValueError."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_lines",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__lines(void)
{
    return PyModuleDef_Init(&definition);
}
