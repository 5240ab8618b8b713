#include "jobs/sweep/submission.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/utf8.h"
#include "jobs/sweep/files.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr const char* kRecordFormat = "winnow-submission";
constexpr int kRecordVersion = 1;

std::string new_id() {
  std::random_device random;
  constexpr const char* kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string id = utc_now("%Y%m%dT%H%M%SZ") + "-";
  for (int i = 0; i < 6; ++i) id += kDigits[random() % 36];
  return id;
}

nlohmann::json resources_json(const Resources& resources) {
  return {{"nodes", resources.nodes},
          {"ranks_per_node", resources.ranks_per_node},
          {"gpus_per_node", resources.gpus_per_node},
          {"time", resources.time},
          {"memory", resources.memory},
          {"sbatch", resources.sbatch_options}};
}

Resources resources_from_json(const nlohmann::json& json) {
  return {.nodes = json.at("nodes"),
          .ranks_per_node = json.at("ranks_per_node"),
          .gpus_per_node = json.at("gpus_per_node"),
          .time = json.at("time"),
          .memory = json.at("memory"),
          .sbatch_options = json.at("sbatch")};
}

// Throws nlohmann::json::exception for what is no cell.
Cell cell_from_json(const nlohmann::json& json) {
  Cell cell;
  cell.name = json.at("name");
  cell.run_directory = json.at("run_directory").get<std::string>();
  cell.calibrate_arguments = json.at("calibrate_arguments").get<std::vector<std::string>>();
  if (json.contains("run_directory_encoded")) {
    cell.run_directory = decoded_path(json.at("run_directory_encoded").get<std::string>());
    cell.calibrate_arguments.clear();
    for (const nlohmann::json& word : json.at("calibrate_arguments_encoded")) {
      cell.calibrate_arguments.push_back(decoded_path(word.get<std::string>()));
    }
  }
  cell.seeds = json.at("seeds").get<std::vector<uint64_t>>();
  cell.resources = resources_from_json(json.at("resources"));
  cell.max_attempts = json.at("max_attempts");
  cell.model = json.at("model");
  cell.dataset = json.at("dataset");
  cell.window = json.at("window");
  cell.sinks = json.at("sinks");
  cell.decode = json.at("decode");
  cell.target = json.at("target");
  return cell;
}

}  // namespace

nlohmann::json cell_json(const Cell& cell) {
  nlohmann::json json = {{"name", cell.name},
                         {"run_directory", cell.run_directory.string()},
                         {"calibrate_arguments", cell.calibrate_arguments},
                         {"seeds", cell.seeds},
                         {"resources", resources_json(cell.resources)},
                         {"max_attempts", cell.max_attempts},
                         {"model", cell.model},
                         {"dataset", cell.dataset},
                         {"window", cell.window},
                         {"sinks", cell.sinks},
                         {"decode", cell.decode},
                         {"target", cell.target}};
  // Paths among them that are not UTF-8 are read back from these.
  const std::vector<std::string>& words = cell.calibrate_arguments;
  if (!is_utf8(cell.run_directory.string()) || !std::all_of(words.begin(), words.end(), is_utf8)) {
    json["run_directory_encoded"] = encoded_path(cell.run_directory.string());
    for (const std::string& word : words) json["calibrate_arguments_encoded"].push_back(encoded_path(word));
  }
  return json;
}

fs::path write_submission(const fs::path& output, const std::vector<Cell>& cells, const nlohmann::json& more) {
  const fs::path submission = output / "submissions" / new_id();
  make_directories(submission);
  nlohmann::json json = {
      {"format", kRecordFormat}, {"format_version", kRecordVersion}, {"cells", nlohmann::json::array()}};
  for (const Cell& cell : cells) json["cells"].push_back(cell_json(cell));
  json.update(more);
  write_file_atomically(submission / "cells.json", dump_json(json, 1));
  return submission;
}

std::vector<Cell> read_submission(const fs::path& submission) {
  const fs::path path = submission / "cells.json";
  const std::optional<nlohmann::json> json = read_json(path);
  if (!json) {
    fail(ExitCode::kNoInput, path.string() + ": cannot be read; name a directory that winnow sweep submit made");
  }
  try {
    if (json->at("format") != kRecordFormat || json->at("format_version") != kRecordVersion)
      throw std::runtime_error("other format");
    std::vector<Cell> cells;
    for (const nlohmann::json& cell : json->at("cells")) cells.push_back(cell_from_json(cell));
    return cells;
  } catch (const std::exception& error) {
    fail(ExitCode::kBadData,
         path.string() + ": is no submission of this version of winnow (" + error.what() + "); submit the sweep again");
  }
}

}  // namespace winnow::sweep
