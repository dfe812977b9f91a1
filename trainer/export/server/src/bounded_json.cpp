#include "bounded_json.hpp"

#include <array>
#include <set>
#include <string>

#include "errors.hpp"
#include "field_path.hpp"

namespace crosstower {
namespace {

using nlohmann::json;

// A request has five levels: object, requests, a request, its history, a feature's list. Some more, so that what is nested by mistake
// is still named by its field.
constexpr int kMaxDepth = 8;

// Watches the parser's events: a value's depth is the number of lists and objects around it.
class Watch {
 public:
  bool see(int depth, json::parse_event_t event, const json& parsed) {
    const bool opens = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (opens && depth >= kMaxDepth) {
      throw RequestError(400, "body", "nests deeper than " + std::to_string(kMaxDepth) + " lists and objects; a request has five levels");
    }
    if (event == json::parse_event_t::object_start) names_[static_cast<size_t>(depth) + 1].clear();
    if (event == json::parse_event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      // the parser would keep the last one and drop the others in silence
      if (!names_[static_cast<size_t>(depth)].insert(name).second) throw RequestError(400, shortened(name), "appears twice in an object");
    }
    return true;
  }

 private:
  std::array<std::set<std::string>, kMaxDepth + 1> names_;
};

}  // namespace

json parse_bounded_json(std::string_view text) {
  Watch watch;
  try {
    return json::parse(text.begin(), text.end(),
                       [&watch](int depth, json::parse_event_t event, json& parsed) { return watch.see(depth, event, parsed); });
  } catch (const json::parse_error& error) {
    throw RequestError(400, "body", "not JSON: syntax error at byte " + std::to_string(error.byte) + " of " + std::to_string(text.size()));
  } catch (const json::out_of_range&) {
    throw RequestError(400, "body", "holds a number that is beyond a double");
  }
}

}  // namespace crosstower
