// Which mutant is the broken one, and which sites were reached since last asked.
#include "mutation.h"

#include <cstring>

namespace {

int g_broken = -1;
unsigned char g_reached[mutation::kMostSites];

}  // namespace

namespace mutation {

bool stays(int site) {
  g_reached[site] = 1;
  return site != g_broken;
}

bool pick(int site, bool is, bool would) {
  if (is != would) g_reached[site] = 1;
  return site == g_broken ? would : is;
}

}  // namespace mutation

extern "C" {

void mutation_break(int site) { g_broken = site; }

void mutation_take_reached(unsigned char* to) {
  std::memcpy(to, g_reached, sizeof g_reached);
  std::memset(g_reached, 0, sizeof g_reached);
}

}  // extern "C"
