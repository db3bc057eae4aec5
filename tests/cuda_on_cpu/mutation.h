// The mutants of the kernels in one build: mutants.py writes a copy of the kernels in which every
// barrier and every bound asks here whether it is the one that is broken now.
//
// `a < b` becomes `a < ::mutation::Less{7} > b`, which C++ reads as `(a < Less{7}) > b`: it binds
// as the bound itself does, so that nothing has to be parsed.
#pragma once

namespace mutation {

inline constexpr int kMostSites = 1024;

// Both note that the test which runs now reaches the site. `stays`: whether the barrier is there.
// `pick`: what the bound says, `would` where it is broken; reached only where the two differ.
bool stays(int site);
bool pick(int site, bool is, bool would);

struct Less {
  int site;
};
struct LessEqual {
  int site;
};
struct Greater {
  int site;
};
struct GreaterEqual {
  int site;
};

template <typename T, typename Bound>
struct Half {
  T left;
  int site;
};

template <typename T>
Half<T, Less> operator<(T left, Less bound) {
  return {left, bound.site};
}
template <typename T>
Half<T, LessEqual> operator<(T left, LessEqual bound) {
  return {left, bound.site};
}
template <typename T>
Half<T, Greater> operator<(T left, Greater bound) {
  return {left, bound.site};
}
template <typename T>
Half<T, GreaterEqual> operator<(T left, GreaterEqual bound) {
  return {left, bound.site};
}

template <typename T, typename U>
bool operator>(Half<T, Less> half, U right) {
  return pick(half.site, half.left < right, half.left <= right);
}
template <typename T, typename U>
bool operator>(Half<T, LessEqual> half, U right) {
  return pick(half.site, half.left <= right, half.left < right);
}
template <typename T, typename U>
bool operator>(Half<T, Greater> half, U right) {
  return pick(half.site, half.left > right, half.left >= right);
}
template <typename T, typename U>
bool operator>(Half<T, GreaterEqual> half, U right) {
  return pick(half.site, half.left >= right, half.left > right);
}

}  // namespace mutation
