// Answers as JSON text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "errors.hpp"
#include "top_items.hpp"

namespace crosstower {

struct ScoreAnswer {
  std::vector<float> scores;  // in the candidates' order
  std::vector<Scored> top;    // best first; empty where none was asked for
};

struct RetrieveAnswer {
  std::vector<Scored> items;  // best first; position is the item id
};

// The shortest decimal that reads back as the same float32; `number` is finite.
std::string decimal(float number);

// The body of /v1/score; answer i belongs to candidates[i].
std::string score_body(const std::string& artefact, const std::vector<ScoreAnswer>& answers,
                       const std::vector<const std::vector<int64_t>*>& candidates);

// The body of /v1/retrieve.
std::string retrieve_body(const std::string& artefact, const std::vector<RetrieveAnswer>& answers);

// {"error": {"field": …, "message": …}}
std::string error_body(const std::string& field, const std::string& message);

}  // namespace crosstower
