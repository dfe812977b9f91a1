// The parts that need no artefact; prints each failed check and exits 1.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>

#include "answer.hpp"
#include "bounded_json.hpp"
#include "errors.hpp"
#include "field_path.hpp"
#include "options.hpp"
#include "sha256.hpp"
#include "top_items.hpp"

namespace crosstower {
namespace {

int failures = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

template <typename Error, typename Call>
bool throws(const Call& call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void sha256_of_known_texts() {
  // FIPS 180-2, appendix B
  check(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "sha256 of abc");
  check(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256 of nothing");
}

void decimals_read_back_as_the_same_float() {
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const uint32_t bits = random();
    float number = 0;
    std::memcpy(&number, &bits, sizeof(number));
    if (!std::isfinite(number)) continue;
    const auto parsed = static_cast<float>(nlohmann::json::parse(decimal(number)).get<double>());
    check(std::memcmp(&parsed, &number, sizeof(number)) == 0, "a float32 survives its decimal form as JSON");
  }
  check(decimal(0.1f) == "0.1", "the shortest form of 0.1f");
}

void top_items_break_ties_by_position() {
  TopItems top(3);
  for (const Scored& one : {Scored{1, 5}, Scored{2, 9}, Scored{2, 4}, Scored{1, 2}, Scored{0, 0}}) top.see(one);
  const std::vector<Scored> best = top.sorted();
  check(best.size() == 3 && best[0].position == 4 && best[1].position == 9 && best[2].position == 2, "ties go to the lower position");
  TopItems none(0);
  none.see({1, 1});
  check(none.sorted().empty(), "a top of none stays empty");
}

void json_is_bounded() {
  check(parse_bounded_json(R"({"a":[{"b":{"c":[1]}}]})").is_object(), "a request's nesting is allowed");
  check(throws<RequestError>([] { parse_bounded_json("[[[[[[[[[1]]]]]]]]]"); }), "nine levels are refused");
  check(parse_bounded_json("[[[[[[[[1]]]]]]]]").is_array(), "eight levels are not");
  check(throws<RequestError>([] { parse_bounded_json(std::string(10'000'000, '[')); }), "ten million brackets are refused");
  check(throws<RequestError>([] { parse_bounded_json(R"({"a":1,"a":2})"); }), "a name given twice is refused");
  check(throws<RequestError>([] { parse_bounded_json(R"([{"a":1,"b":[{"c":1}],"a":2}])"); }), "also with an object between");
  check(parse_bounded_json(R"([{"a":1},{"a":2}])").size() == 2, "two objects may share names");
  check(throws<RequestError>([] { parse_bounded_json("1e999"); }), "a number beyond a double is refused");
  check(throws<RequestError>([] { parse_bounded_json("NaN"); }), "NaN is no JSON");
  check(throws<RequestError>([] { parse_bounded_json("{} x"); }), "text after the value is refused");
}

void paths_name_fields() {
  const FieldPath root("");
  const FieldPath requests = root.member("requests");
  const FieldPath first = requests.element(0);
  const FieldPath history = first.member("history");
  const FieldPath feature = history.member("hist_item");
  check(feature.element(3).text() == "requests[0].history.hist_item[3]", "the path of an id");
  check(root.member(std::string(1'000, 'x')).text().size() < 100, "a long name is shortened");
}

Options parse(const std::vector<const char*>& words) {
  std::vector<const char*> argv = {"crosstower_server"};
  argv.insert(argv.end(), words.begin(), words.end());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

void options_are_checked() {
  check(parse({"--artefact", "x", "--port=0"}).port == 0, "both ways of giving a value");
  check(throws<UserError>([] { parse({}); }), "an artefact is required");
  check(throws<UserError>([] { parse({"--artefact", "x", "--prot", "1"}); }), "an unknown option is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port", "65536"}); }), "a port out of range is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port", "80x"}); }), "a number with a tail is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port"}); }), "a missing value is refused");
}

}  // namespace
}  // namespace crosstower

int main() {
  using namespace crosstower;
  sha256_of_known_texts();
  decimals_read_back_as_the_same_float();
  top_items_break_ties_by_position();
  json_is_bounded();
  paths_name_fields();
  options_are_checked();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
