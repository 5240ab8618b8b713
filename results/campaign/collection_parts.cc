#include "results/campaign/collection_parts.h"

namespace winnow::campaign {
namespace {

// Every cell's own reasons are in undefined_figures.
constexpr std::size_t kMostReasons = 8;

std::vector<int64_t> integers_of(const std::vector<CollectedCell>& cells,
                                 const std::function<int64_t(const CollectedCell&)>& get) {
  std::vector<int64_t> values;
  for (const CollectedCell& cell : cells) values.push_back(get(cell));
  return values;
}

// The dimension prefix + "cell" of a group, with its coordinate.
void write_cell_dimension(storage::Group& group, const std::vector<CollectedCell>& cells, const std::string& prefix) {
  storage::write_coordinate<std::string>(group, prefix + "cell", texts_of(cells, [](const auto& c) { return c.label; }),
                                         {storage::kText, "folder of the results below the runs of the sweep"});
}

// Reasons in one line, the first few: an attribute ends at 64 KiB.
std::string joined_reasons(const std::set<std::string>& reasons) {
  std::string text;
  std::size_t n = 0;
  for (const std::string& reason : reasons) {
    if (n++ == kMostReasons) return text + "; ... (see undefined_figures)";
    text += (text.empty() ? "" : "; ") + reason;
  }
  return text;
}

}  // namespace

std::vector<std::string> texts_of(const std::vector<CollectedCell>& cells,
                                  const std::function<std::string(const CollectedCell&)>& get) {
  std::vector<std::string> values;
  for (const CollectedCell& cell : cells) values.push_back(get(cell));
  return values;
}

void write_cells(storage::Group& group, const std::vector<CollectedCell>& cells, const std::string& prefix) {
  const std::string dimension = prefix + "cell";
  const std::string of = prefix.empty() ? "" : " of the other cell";
  const std::vector<int64_t> shape = {static_cast<int64_t>(cells.size())};
  const auto text = [&](const char* name, const std::string& long_name,
                        const std::function<std::string(const CollectedCell&)>& get) {
    storage::write_variable<std::string>(group, {prefix + name, {dimension}, shape}, texts_of(cells, get),
                                         {storage::kText, long_name + of});
  };
  const auto integer = [&](const char* name, const storage::Description& description,
                           const std::function<int64_t(const CollectedCell&)>& get) {
    storage::write_variable<int64_t>(group, {prefix + name, {dimension}, shape}, integers_of(cells, get),
                                     {description.units, description.long_name + of});
  };
  write_cell_dimension(group, cells, prefix);
  text("model", "model, as the sweep names it", [](const auto& c) { return c.model; });
  text("dataset", "data set, as the sweep names it", [](const auto& c) { return c.dataset; });
  integer("window", {storage::kTokens, "window as given"}, [](const auto& c) { return c.window; });
  integer("window_keys", {storage::kTokens, "keys that a row of a windowed layer sees, itself included"},
          [](const auto& c) { return c.window_keys; });
  integer("sinks", {storage::kTokens, "first tokens that every row sees besides"},
          [](const auto& c) { return c.sinks; });
  text("decode", "whether answer rows obey the window", [](const auto& c) { return c.decode; });
  text("target", "engine whose window rules were used, empty: none named", [](const auto& c) { return c.target; });
  integer("seed", {storage::kOne, "seed of bootstrap and permutations"}, [](const auto& c) { return c.seed; });
}

FigureVariable::FigureVariable(storage::Variable variable, storage::Description description)
    : variable_(std::move(variable)), description_(std::move(description)) {
  int64_t count = 1;
  for (const int64_t extent : variable_.shape) count *= extent;
  values_.assign(static_cast<std::size_t>(count), kNan);
}

void FigureVariable::put(int64_t index, const stats::Figure& figure) {
  put(index, figure.value);
  if (!figure.defined()) explain(figure.status);
}

void FigureVariable::write(storage::Group& group, const char* coordinates) const {
  storage::write_variable<double>(group, variable_, values_, description_);
  group.set_attribute<double>(variable_.name, "_FillValue", kNan);
  if (coordinates != nullptr) group.set_attribute<std::string>(variable_.name, "coordinates", coordinates);
  if (!reasons_.empty()) group.set_attribute<std::string>(variable_.name, "status", joined_reasons(reasons_));
}

void write_cell_figures(storage::Group& group, const std::vector<CollectedCell>& cells,
                        const std::vector<CellFigure>& figures, const char* coordinates) {
  const auto n_cells = static_cast<int64_t>(cells.size());
  for (const CellFigure& figure : figures) {
    FigureVariable variable({figure.name, {"cell"}, {n_cells}}, figure.description);
    for (int64_t c = 0; c < n_cells; ++c) {
      const std::optional<CellSummary>& summary = cells[static_cast<std::size_t>(c)].summary;
      variable.put(c, summary ? figure.get(*summary) : stats::Figure::undefined(kNoResults));
    }
    variable.write(group, coordinates);
  }
}

std::function<stats::Figure(const CellSummary&)> recorded(const char* name) {
  return [name](const CellSummary& summary) {
    const storage::ProvenanceEntry* entry = summary.provenance.find(name);
    if (entry != nullptr && std::holds_alternative<double>(entry->value)) {
      return stats::Figure::of(std::get<double>(entry->value));
    }
    if (entry != nullptr && std::holds_alternative<int64_t>(entry->value)) {
      return stats::Figure::of(static_cast<double>(std::get<int64_t>(entry->value)));
    }
    return stats::Figure::undefined("not recorded by the run");
  };
}

void write_agreement(storage::Group group, const std::vector<CollectedCell>& cells, const RankAgreement& agreement) {
  constexpr const char* kPairCoordinates =
      "model dataset window window_keys sinks decode target seed other_model other_dataset other_window "
      "other_window_keys other_sinks other_decode other_target other_seed";
  const auto n = static_cast<int64_t>(cells.size());
  const auto square = [&](const char* name) { return storage::Variable{name, {"cell", "other_cell"}, {n, n}}; };
  write_cells(group, cells, "");
  write_cells(group, cells, "other_");
  const auto write_matrix = [&](const char* name, const stats::Table<double>& table, const char* long_name,
                                const std::vector<std::string>& reasons) {
    storage::write_variable(group, square(name), table.values, {storage::kOne, long_name});
    group.set_attribute<double>(name, "_FillValue", kNan);
    group.set_attribute<std::string>(name, "coordinates", kPairCoordinates);
    const std::string status = joined_reasons({reasons.begin(), reasons.end()});
    if (!status.empty()) group.set_attribute<std::string>(name, "status", status);
  };
  write_matrix("spearman_rho", agreement.spearman_rho,
               "Spearman's rho over layers between the mean deltas of two cells of one model",
               agreement.spearman_status);
  write_matrix("jaccard", agreement.jaccard, "layers in the top K of both cells over layers in either top K",
               agreement.jaccard_status);
  storage::write_variable(
      group, square("between_datasets"), agreement.between_datasets.values,
      {storage::kOne, "1 where the two cells are compared and differ in the data set and in nothing else"});
  storage::write_variable(
      group, square("between_windows"), agreement.between_windows.values,
      {storage::kOne, "1 where the two cells are compared and differ in the window and in nothing else"});
}

// ---- provenance -----------------------------------------------------------------------------------------------------

namespace {

// Names as in /provenance of a results file, but for those that would be coordinates here.
struct RecordedText {
  const char* name;
  const char* source;
  const char* long_name;
};
constexpr RecordedText kRecordedTexts[] = {
    {"model_path", "model", "checkpoint directory"},
    {"model_type", "model_type", "family, as config.json names it"},
    {"checkpoint_sha256", "checkpoint_sha256", "SHA-256 over config.json and the weights"},
    {"data_path", "data", "calibration file"},
    {"data_sha256", "data_sha256", "SHA-256 of the calibration file"},
    {"base", "base", "pattern that every variant differs from in one layer"},
    {"winnow_version", "winnow_version", "version of winnow"},
    {"git_revision", "git_revision", "revision of winnow's sources"},
    {"command", "command", "command line of the run that finished the measurement"},
    {"statistics_command", "statistics_command", "command line that computed the statistics anew, empty: none did"},
    {"finished", "finished", "when the results were computed, UTC"},
    {"hosts", "hosts", "hosts"},
    {"processors", "processors", "processors"},
    {"devices", "devices", "devices, threads and libraries of the ranks"},
    {"backend", "backend", "device of the forward passes"},
    {"attention_path", "attention_path", "how attention is computed"},
    {"compute_dtype", "compute_dtype", "type of activations"},
    {"residual_dtype", "residual_dtype", "type of the residual stream"},
    {"reduction", "reduction", "how tables were summed over the ranks"},
    {"mpi_library", "mpi_library", "MPI library"},
    {"compiler", "compiler", "compiler of the program"},
    {"warnings", "warnings", "what a reader of the figures should know, empty: nothing"},
};

std::vector<CellFigure> recorded_numbers() {
  std::vector<CellFigure> figures;
  const auto add = [&](const char* name, const storage::Description& description) {
    figures.push_back({name, description, recorded(name)});
  };
  const auto add_option = [&](const char* name, const char* long_name,
                              int64_t calibration::StatisticsOptions::*option) {
    const auto get = [option](const CellSummary& summary) {
      return stats::Figure::of(static_cast<double>(summary.statistics.options.*option));
    };
    figures.push_back({name, {storage::kOne, long_name}, get});
  };
  add("model_layers", {storage::kOne, "layers of the model"});
  add("tail_rows", {storage::kTokens, "rows before the answer that obey the window; -1: all rows"});
  add("ranks", {storage::kOne, "MPI ranks of the last run that measured"});
  add("threads_per_rank", {storage::kOne, "threads of a rank, the most of any"});
  add("load_bytes", {kBytes, "weights read into the backends' memory, over the ranks"});
  add("predicted_bytes", {kBytes, "memory predicted for the largest unit of a rank"});
  add("peak_allocated_bytes", {kBytes, "peak of winnow's own allocations on a rank"});
  add("peak_resident_bytes", {kBytes, "peak of a rank's process"});
  add_option("n_resamples", "bootstrap resamples", &calibration::StatisticsOptions::n_resamples);
  add_option("n_permutations", "permutations of spearman_p", &calibration::StatisticsOptions::n_permutations);
  add_option("n_splits", "splits of split_half", &calibration::StatisticsOptions::n_splits);
  return figures;
}

}  // namespace

void write_collected_provenance(storage::Group group, const std::vector<CollectedCell>& cells) {
  const std::vector<int64_t> shape = {static_cast<int64_t>(cells.size())};
  write_cell_dimension(group, cells, "");
  for (const RecordedText& text : kRecordedTexts) {
    const auto get = [&](const CollectedCell& cell) {
      return cell.summary ? cell.summary->provenance.text(text.source) : "";
    };
    storage::write_variable<std::string>(group, {text.name, {"cell"}, shape}, texts_of(cells, get),
                                         {storage::kText, text.long_name});
  }
  write_cell_figures(group, cells, recorded_numbers(), nullptr);
}

}  // namespace winnow::campaign
