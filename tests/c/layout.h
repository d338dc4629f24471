/* Where the fields of the C door's structs lie, as one header has them. */
#ifndef MANYHEADS_TESTS_C_LAYOUT_H
#define MANYHEADS_TESTS_C_LAYOUT_H

#include <stddef.h>

struct layout_row {
  const char* type;
  const char* field;   /* "" for the struct itself */
  size_t offset, size; /* of an enumerator, whose type is "enum": its value and 0 */
};

/* Ends with a row whose type is NULL; the struct's own row comes after its fields. */
typedef const struct layout_row* layout_function(void);

#ifdef __cplusplus
extern "C" {
#endif
layout_function layout_as_c11, layout_as_cpp, layout_by_first_header;
#ifdef __cplusplus
}
#endif

#endif
