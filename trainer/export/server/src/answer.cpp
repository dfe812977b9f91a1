#include "answer.hpp"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

namespace crosstower {
namespace {

void append(std::string* text, float number) {
  std::array<char, 32> digits{};  // the longest float32 has 15 characters
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  text->append(digits.data(), end);
}

// `[` one, two, … `]` where `one(i)` appends element i.
template <typename Element>
void append_list(std::string* text, size_t size, const Element& element) {
  *text += '[';
  for (size_t i = 0; i < size; ++i) {
    if (i > 0) *text += ',';
    element(i);
  }
  *text += ']';
}

// The artefact's id is hexadecimal and needs no escapes.
std::string opening(const std::string& artefact) { return R"({"artefact":")" + artefact + R"(","answers":)"; }

}  // namespace

std::string decimal(float number) {
  std::string text;
  append(&text, number);
  return text;
}

std::string score_body(const std::string& artefact, const std::vector<ScoreAnswer>& answers,
                       const std::vector<const std::vector<int64_t>*>& candidates) {
  std::string text = opening(artefact);
  append_list(&text, answers.size(), [&](size_t i) {
    text += R"({"scores":)";
    append_list(&text, answers[i].scores.size(), [&](size_t k) { append(&text, answers[i].scores[k]); });
    if (!answers[i].top.empty()) {
      text += R"(,"top":)";
      append_list(&text, answers[i].top.size(), [&](size_t k) {
        const Scored& one = answers[i].top[k];
        text += R"({"item":)" + std::to_string((*candidates[i])[static_cast<size_t>(one.position)]) + R"(,"score":)";
        append(&text, one.score);
        text += R"(,"position":)" + std::to_string(one.position) + "}";
      });
    }
    text += '}';
  });
  return text + "}";
}

std::string retrieve_body(const std::string& artefact, const std::vector<RetrieveAnswer>& answers) {
  std::string text = opening(artefact);
  append_list(&text, answers.size(), [&](size_t i) {
    const std::vector<Scored>& items = answers[i].items;
    text += R"({"items":)";
    append_list(&text, items.size(), [&](size_t k) { text += std::to_string(items[k].position); });
    text += R"(,"scores":)";
    append_list(&text, items.size(), [&](size_t k) { append(&text, items[k].score); });
    text += '}';
  });
  return text + "}";
}

std::string error_body(const std::string& field, const std::string& message) {
  const nlohmann::json body = {{"error", {{"field", field}, {"message", message}}}};
  // replace: a name that was cut in the middle of a character is no UTF-8
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace crosstower
