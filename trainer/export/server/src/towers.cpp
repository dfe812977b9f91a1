#include "towers.hpp"

#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/version.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "errors.hpp"

namespace crosstower {
namespace {

// Lets torch read a module from the bytes that were verified.
class MappedReader : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit MappedReader(std::string_view bytes) : bytes_(bytes) {}

  size_t size() const override { return bytes_.size(); }

  size_t read(uint64_t position, void* buffer, size_t count, const char* /*what*/) const override {
    const size_t start = std::min<size_t>(position, bytes_.size());
    const size_t length = std::min(count, bytes_.size() - start);
    std::memcpy(buffer, bytes_.data() + start, length);
    return length;
  }

 private:
  std::string_view bytes_;
};

std::string shape_text(at::IntArrayRef shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

// A frozen module has nothing left for the profiling executor to win: its guards cost a tenth of a request, and each new size would be
// profiled and compiled while a request waits. The switch belongs to the thread.
void run_as_written() { torch::jit::setGraphExecutorOptimize(false); }

torch::jit::Module load(const std::string& name, const std::map<std::string, MappedFile>& files) {
  try {
    torch::jit::Module module = torch::jit::load(std::make_shared<MappedReader>(files.at(name).bytes()), at::kCPU);
    module.eval();
    return module;
  } catch (const std::exception& error) {
    const std::string first_line = std::string(error.what()).substr(0, std::string(error.what()).find('\n'));
    throw ArtefactError(name + ": torch " TORCH_VERSION " does not load it: " + first_line + "; export again with this torch");
  }
}

}  // namespace

struct Towers::Modules {
  torch::jit::Module user;
  torch::jit::Module scorer;
};

Towers::Towers(const Manifest& manifest, const std::map<std::string, MappedFile>& files)
    : modules_(new Modules{load("user_tower.pt", files), load("scorer.pt", files)}),
      noise_size_(manifest.noise_size),
      seed_(manifest.seed),
      shape_(manifest.user_shape) {
  const char* const method = noise_size_ > 0 ? "seeded" : "forward";
  if (!modules_->user.find_method(method)) {
    throw ArtefactError(std::string("user_tower.pt: has no method ") + method + "; export the artefact again");
  }
  if (!modules_->scorer.find_method("forward")) throw ArtefactError("scorer.pt: has no method forward; export the artefact again");
}

Towers::~Towers() = default;

at::Tensor Towers::user(const UserInputs& inputs) const {
  run_as_written();
  std::vector<at::IValue> arguments = {inputs.user_values, inputs.user_lengths_UB, inputs.history_values_HJ, inputs.history_lengths_B};
  const int64_t rows = inputs.history_lengths_B.size(0);
  at::Tensor user_BNHP;
  if (noise_size_ > 0) {
    arguments.insert(arguments.end(), {inputs.row_id_B, seed_});
    user_BNHP = modules_->user.get_method("seeded")(std::move(arguments)).toTensor();
  } else {
    arguments.emplace_back(at::zeros({rows, 0}));
    user_BNHP = modules_->user.forward(std::move(arguments)).toTensor();
  }
  const std::vector<int64_t> expected = {rows, shape_.num_queries, shape_.heads, shape_.width};
  if (user_BNHP.sizes() != at::IntArrayRef(expected) || user_BNHP.scalar_type() != at::kFloat) {
    throw ArtefactError("user_tower.pt: returned " + std::string(at::toString(user_BNHP.scalar_type())) + " " + shape_text(user_BNHP.sizes()) +
                        ", expected float32 " + shape_text(expected) + "; export the artefact again");
  }
  return user_BNHP;
}

at::Tensor Towers::score(const at::Tensor& user_1NHP, const at::Tensor& query_1K, const at::Tensor& item_1KHP) const {
  run_as_written();
  const at::Tensor score_1K = modules_->scorer.forward({user_1NHP, query_1K, item_1KHP}).toTensor();
  if (score_1K.dim() != 2 || score_1K.size(0) != 1 || score_1K.size(1) != query_1K.size(1) || score_1K.scalar_type() != at::kFloat) {
    throw ArtefactError("scorer.pt: returned " + std::string(at::toString(score_1K.scalar_type())) + " " + shape_text(score_1K.sizes()) +
                        ", expected float32 [1, " + std::to_string(query_1K.size(1)) + "]; export the artefact again");
  }
  return score_1K.contiguous();
}

}  // namespace crosstower
