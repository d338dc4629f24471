#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lens/text_scorer.hpp"

namespace manyheads::test {

inline const lens::RoleScore& named(const std::vector<lens::RoleScore>& scores, const std::string& name) {
  for (const lens::RoleScore& score : scores) {
    if (score.name == name) return score;
  }
  ADD_FAILURE() << "no score " << name;
  return scores.front();
}

}  // namespace manyheads::test
