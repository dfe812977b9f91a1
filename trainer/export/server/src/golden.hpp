// The golden requests of an artefact and what eager Python answered: what a server must answer too before it serves.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "request.hpp"

namespace crosstower {

// A golden request of one user.
struct GoldenRequest {
  size_t line;  // its number in golden_requests.jsonl, from 0
  Route route;
  std::string_view body;
  std::vector<double> scores;
};

// The requests of one user, with histories and candidates of every size, out of golden_requests.jsonl and golden_answers.jsonl; larger
// batches would hold up a swap for seconds. `requests` must outlive the result. ArtefactError where there are none, or a line is no
// answer.
std::vector<GoldenRequest> read_golden(std::string_view requests, std::string_view answers);

// ArtefactError where a score of `answer`, a body of this server's, differs by more than 1e-5 from the golden one.
void check_golden_answer(const GoldenRequest& golden, const std::string& answer);

}  // namespace crosstower
