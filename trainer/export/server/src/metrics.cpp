#include "metrics.hpp"

#include <algorithm>
#include <sstream>

namespace crosstower {
namespace {

// Prometheus' escapes of a label's value.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '\\' || letter == '"') result += '\\';
    result += letter == '\n' ? ' ' : letter;
  }
  return result;
}

void describe(std::ostream& page, const std::string& name, const std::string& type, const std::string& help) {
  page << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
}

}  // namespace

void Metrics::count_request(const std::string& route, int status, double seconds) {
  const auto bucket = static_cast<size_t>(std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin());
  const std::lock_guard<std::mutex> lock(mutex_);
  ++requests_[{route, status}];
  Latency& latency = latency_[route];
  ++latency.counts[bucket];
  latency.sum += seconds;
}

void Metrics::count_swap(bool succeeded) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++(succeeded ? swaps_ : failed_swaps_);
}

std::string Metrics::page(const Manifest& manifest) const {
  std::ostringstream page;
  describe(page, "crosstower_artefact_info", "gauge", "The artefact that is served; always 1.");
  page << "crosstower_artefact_info{artefact=\"" << manifest.artefact << "\",model=\"" << escaped(manifest.model) << "\",task=\""
       << manifest.task << "\",step=\"" << manifest.step << "\"} 1\n";
  describe(page, "crosstower_items", "gauge", "Items of the store.");
  page << "crosstower_items " << manifest.store.num_items << '\n';

  const std::lock_guard<std::mutex> lock(mutex_);
  describe(page, "crosstower_swaps_total", "counter", "Artefacts asked for by SIGHUP.");
  page << "crosstower_swaps_total{result=\"ok\"} " << swaps_ << "\ncrosstower_swaps_total{result=\"failed\"} " << failed_swaps_ << '\n';
  describe(page, "crosstower_requests_total", "counter", "Answers sent, by route and status.");
  for (const auto& [key, count] : requests_) {
    page << "crosstower_requests_total{route=\"" << key.first << "\",status=\"" << key.second << "\"} " << count << '\n';
  }
  describe(page, "crosstower_request_seconds", "histogram", "Seconds from a request's headers to its answer.");
  for (const auto& [route, latency] : latency_) {
    uint64_t below = 0;
    for (size_t i = 0; i < kBounds.size(); ++i) {
      below += latency.counts[i];
      page << "crosstower_request_seconds_bucket{route=\"" << route << "\",le=\"" << kBounds[i] << "\"} " << below << '\n';
    }
    below += latency.counts.back();
    page << "crosstower_request_seconds_bucket{route=\"" << route << "\",le=\"+Inf\"} " << below << '\n';
    page << "crosstower_request_seconds_sum{route=\"" << route << "\"} " << latency.sum << '\n';
    page << "crosstower_request_seconds_count{route=\"" << route << "\"} " << below << '\n';
  }
  return page.str();
}

}  // namespace crosstower
