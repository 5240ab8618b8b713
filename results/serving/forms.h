// The forms in which config.json tells an engine the windows, and what the weights need to go with another family's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/serving/request.h"

namespace winnow::serving {

// A tensor that a checkpoint gets besides its own: one value throughout.
struct NewTensor {
  std::string name;  // from "layers.0" on: what stands before it is as in the checkpoint's own names
  std::vector<int64_t> shape;
  float value = 0.F;
};

// A tensor of the checkpoint that it gets once more under another name. `from` has nothing before "embed_tokens".
struct CopiedTensor {
  std::string from;
  std::string name;
};

// A part of the names of tensors, and what stands there instead.
struct Renaming {
  std::string from;
  std::string to;
};

// How a checkpoint's weights change. Files without a renamed tensor are linked.
struct WeightChanges {
  std::vector<NewTensor> added;
  std::vector<CopiedTensor> copied;
  std::vector<Renaming> renamed;

  bool is_none() const { return added.empty() && copied.empty() && renamed.empty(); }
};

// A checkpoint in another form.
struct FormOfModel {
  Json patch = Json::object();         // fields of config.json that are set
  std::vector<std::string> dropped{};  // fields that go
  WeightChanges weights{};
  std::string served_as;  // model_type
};

// Returns the form. Throws Error(kBadData) where the checkpoint cannot have it or would compute something else.
FormOfModel make_form(const Request& request, Form form);
// Returns the form in which no layer has a window: the checkpoint's own, less a window of its own.
FormOfModel full_form(const Request& request);
// Gives a model whose output is its embeddings an output of its own, for an engine that asks for one.
void untie_output(const Request& request, FormOfModel& form);
// Returns config.json in that form.
Json changed_config(const Json& config, const FormOfModel& form);

}  // namespace winnow::serving
