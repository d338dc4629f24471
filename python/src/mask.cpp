#include <nanobind/stl/string.h>

#include "arguments.hpp"

namespace manyheads::python {
namespace {

Alignment alignment_of(nb::handle name, const char* function) {
  if (name.is_none()) return Alignment::kUnspecified;
  const std::string text = nb::isinstance<nb::str>(name) ? nb::cast<std::string>(name) : "";
  if (text == "top_left") return Alignment::kTopLeft;
  if (text == "bottom_right") return Alignment::kBottomRight;
  throw nb::value_error((std::string(function) + ": alignment is " + nb::cast<std::string>(nb::repr(name)) +
                         ", expected 'top_left', 'bottom_right' or None")
                            .c_str());
}

PythonMask of_arrays(const char* name, std::initializer_list<std::pair<nb::handle, const char*>> given,
                     Mask (*make)(const std::vector<std::shared_ptr<const Array>>&)) {
  PythonMask made;
  const std::string function = std::string("mask.") + name;
  made.text = std::string(name) + "(";
  for (const auto& [object, argument] : given) {
    made.arrays.push_back(std::make_shared<Array>(object, function.c_str(), argument));
    if (made.text.back() != '(') made.text += ", ";
    made.text +=
        std::string(python_name(made.arrays.back()->view().dtype())) + made.arrays.back()->view().shape().to_string();
  }
  made.text += ")";
  made.mask = make(made.arrays);
  return made;
}

std::string bound(std::int64_t steps) { return steps < 0 ? "None" : std::to_string(steps); }

std::int64_t steps_of(nb::handle steps, const char* argument) {
  if (steps.is_none()) return -1;
  std::int64_t value = -1;
  if (nb::try_cast(steps, value) && value >= 0) return value;
  throw nb::value_error((std::string("mask.window: ") + argument + " is " + nb::cast<std::string>(nb::repr(steps)) +
                         ", expected 0 or more, or None for no bound")
                            .c_str());
}

}  // namespace

PythonMask mask_of(nb::handle mask, const char* function) {
  if (mask.is_none()) return {};
  if (nb::isinstance<PythonMask>(mask)) return nb::cast<PythonMask>(mask);
  PythonMask made;
  made.arrays.push_back(std::make_shared<Array>(mask, function, "mask"));
  made.text = "array";
  const ConstTensorView& view = made.arrays.back()->view();
  made.mask = view.dtype() == DType::kBool ? mask::allowed(view) : mask::bias(view);
  return made;
}

Array optional_array(nb::handle object, const char* function, const char* argument) {
  return object.is_none() ? Array() : Array(object, function, argument);
}

void bind_mask(nb::module_& module) {
  using nb::literals::operator""_a;
  nb::class_<PythonMask>(
      module, "Mask",
      "Which keys a query may attend to, and what is added to its scores.\n\n"
      "Made by the functions of manyheads.mask; parts compose with |, and all of them hold at once.\n"
      "It keeps the arrays that it was made of.\n\n"
      ">>> mask.causal('bottom_right') | mask.window(128, 0)\n"
      "causal(bottom_right) | window(128, 0)")
      .def(
          "__or__",
          [](const PythonMask& a, const PythonMask& b) {
            PythonMask both{a.mask | b.mask, a.arrays, a.text + " | " + b.text};
            both.arrays.insert(both.arrays.end(), b.arrays.begin(), b.arrays.end());
            return both;
          },
          "other"_a, nb::is_operator())
      .def("__repr__", [](const PythonMask& mask) { return mask.text; });

  nb::module_ masks = module.def_submodule("mask", "Masks, to be composed with |.");
  masks.def(
      "causal",
      [](nb::object alignment) {
        const Alignment at = alignment_of(alignment, "mask.causal");
        const std::string text = alignment.is_none() ? "" : nb::cast<std::string>(alignment);
        return PythonMask{mask::causal(at), {}, "causal(" + text + ")"};
      },
      "alignment"_a = nb::none(),
      "A query at i attends to keys up to i + o. o is 0 for 'top_left', Tk - Tq for 'bottom_right'; one of the two "
      "must\n"
      "be named where Tq and Tk differ.\n\n>>> mask.causal()\ncausal()");
  masks.def(
      "window",
      [](nb::object left, nb::object right, nb::object alignment) {
        const std::int64_t l = steps_of(left, "left"), r = steps_of(right, "right");
        return PythonMask{mask::window(l, r, alignment_of(alignment, "mask.window")),
                          {},
                          "window(" + bound(l) + ", " + bound(r) + ")"};
      },
      "left"_a.none(), "right"_a.none(), "alignment"_a = nb::none(),
      "Keys from left before a query to right behind it; None is no bound.\n\n>>> mask.window(4, None)\nwindow(4, "
      "None)");
  masks.def(
      "align",
      [](nb::object alignment) {
        return PythonMask{mask::align(alignment_of(alignment, "mask.align")),
                          {},
                          "align(" + (alignment.is_none() ? "" : nb::cast<std::string>(alignment)) + ")"};
      },
      "alignment"_a, "Where the diagonal lies, for windows and ALiBi.\n\n>>> mask.align('top_left')\nalign(top_left)");
#define ONE_ARRAY(name, argument, doc)                                                      \
  masks.def(                                                                                \
      #name,                                                                                \
      [](nb::object argument) {                                                             \
        return of_arrays(#name, {{argument, #argument}},                                    \
                         [](const auto& arrays) { return mask::name(arrays[0]->view()); }); \
      },                                                                                    \
      #argument##_a, doc)
  ONE_ARRAY(offsets, per_batch,
            "o of each batch entry, int32 or int64 [B], instead of the alignment's.\n\n"
            ">>> mask.offsets(np.array([3, 5]))\noffsets(int64[2])");
  ONE_ARRAY(key_lengths, per_batch,
            "The keys of each batch entry, int32 or int64 [B]: only those before it exist.\n\n"
            ">>> mask.key_lengths(np.array([7, 3]))\nkey_lengths(int64[2])");
  ONE_ARRAY(key_starts, per_batch,
            "The first key of each batch entry, int32 or int64 [B], for batches padded on the left.\n\n"
            ">>> mask.key_starts(np.array([0, 4]))\nkey_starts(int64[2])");
  ONE_ARRAY(allowed, mask,
            "bool, True = attend; broadcasts from the right to [B,Hq,Tq,Tk].\n\n"
            ">>> mask.allowed(np.ones((4, 4), bool))\nallowed(bool[4,4])");
  ONE_ARRAY(ignored, mask,
            "bool, True = ignore; broadcasts from the right to [B,Hq,Tq,Tk].\n\n"
            ">>> mask.ignored(np.zeros((4, 4), bool))\nignored(bool[4,4])");
  ONE_ARRAY(bias, added,
            "float32 or the type of q, added to the scaled scores; broadcasts the same; -inf forbids.\n\n"
            ">>> mask.bias(np.zeros((4, 4), np.float32))\nbias(float32[4,4])");
  ONE_ARRAY(alibi, slopes,
            "ALiBi: adds -slope |j - i - o|, slopes float32 [Hq].\n\n"
            ">>> mask.alibi(np.array([0.5, 0.25], np.float32))\nalibi(float32[2])");
#undef ONE_ARRAY
  masks.def(
      "documents",
      [](nb::object query_ids, nb::object key_ids) {
        return of_arrays("documents", {{query_ids, "query_ids"}, {key_ids, "key_ids"}},
                         [](const auto& arrays) { return mask::documents(arrays[0]->view(), arrays[1]->view()); });
      },
      "query_ids"_a, "key_ids"_a,
      "A query attends to keys of its own document: int32 or int64 [B,Tq] and [B,Tk].\n\n"
      ">>> ids = np.array([[1, 1, 2]])\n>>> mask.documents(ids, ids)\ndocuments(int64[1,3], int64[1,3])");
}

}  // namespace manyheads::python
