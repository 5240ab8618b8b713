// What config.json says layer by layer: windows that the checkpoint itself has, and positions that go with them.
#pragma once

#include "base/json.h"
#include "model/config.h"

namespace winnow::model {

// Reads the window that Transformers itself applies to this checkpoint, layer by layer, into config.native_window and
// native_window_layers. Throws Error(kBadData) naming the field.
void read_native_window(const ConfigFields& fields, ModelConfig& config);

// Reads the rotary embeddings of the layers into config.ropes and layer_ropes; after read_native_window(). Throws
// Error(kBadData) naming the field.
void read_positions(const ConfigFields& fields, ModelConfig& config);

}  // namespace winnow::model
