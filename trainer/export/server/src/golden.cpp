#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "answer.hpp"
#include "errors.hpp"

namespace crosstower {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-5;  // trainer/export/parity.py has the same

// Takes the first line off `text`.
std::string_view next_line(std::string_view* text) {
  const std::string_view line = text->substr(0, text->find('\n'));
  text->remove_prefix(std::min(text->size(), line.size() + 1));
  return line;
}

std::vector<double> scores_of(const json& answer) { return answer.at("scores").get<std::vector<double>>(); }

// Infinite where one has more scores than the other.
double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

std::vector<GoldenRequest> read_golden(std::string_view requests, std::string_view answers) {
  std::vector<GoldenRequest> golden;
  try {
    for (size_t line = 0; !requests.empty() && !answers.empty(); ++line) {
      const std::string_view body = next_line(&requests);
      const json answered = json::parse(next_line(&answers)).at("answers");
      if (answered.size() != 1) continue;
      const Route route = body.find("\"candidates\"") == std::string_view::npos ? Route::kRetrieve : Route::kScore;
      golden.push_back({line, route, body, scores_of(answered.at(0))});
    }
  } catch (const json::exception&) {
    throw ArtefactError("golden_answers.jsonl: a line holds no answers; export the artefact again");
  }
  if (golden.empty()) throw ArtefactError("golden_requests.jsonl: no answered request of one user; export the artefact again");
  return golden;
}

void check_golden_answer(const GoldenRequest& golden, const std::string& answer) {
  const double difference = largest_difference(scores_of(json::parse(answer).at("answers").at(0)), golden.scores);
  if (difference <= kTolerance) return;
  throw ArtefactError("golden_answers.jsonl: line " + std::to_string(golden.line) + " is answered here with scores that differ by " +
                      decimal(static_cast<float>(difference)) + ", expected at most 1e-05; export the artefact again with this torch");
}

}  // namespace crosstower
