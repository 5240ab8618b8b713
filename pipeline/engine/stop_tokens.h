// The tokens that end a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/engine/generation.h"

namespace winnow::engine {

// Reads the tokens that end a text: eos_token_id, a number or a list, of DIR/generation_config.json, else of
// DIR/config.json; none where both are without. Throws Error(kBadData) naming file and field.
std::vector<int32_t> read_stop_tokens(const std::filesystem::path& model_dir, int64_t vocab);
// Parses the same from a command line: "1,2", "none", or empty for the model's. Throws Error(kUsage) naming `flag`.
std::vector<int32_t> parse_stop_tokens(const std::string& text, const std::string& flag,
                                       const std::filesystem::path& model_dir, int64_t vocab);

}  // namespace winnow::engine
