// Stands in for flat/inner_quads.inc.h where every output channel goes alone.

namespace {

constexpr int kMaxQuad = 0;

}  // namespace

#include "flat/quad_run.inc.h"

namespace {

constexpr QuadTiles kQuadTiles{};

}  // namespace
