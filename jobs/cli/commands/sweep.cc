// winnow sweep: many measurements from one YAML file, on this machine or under Slurm.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/own_files.h"
#include "base/strings.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/external_verb.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/cells.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/collect.h"
#include "jobs/sweep/executor.h"
#include "jobs/sweep/executors/local/executor.h"
#include "jobs/sweep/executors/slurm/batch.h"
#include "jobs/sweep/executors/slurm/executor.h"
#include "jobs/sweep/files.h"
#include "jobs/sweep/report.h"
#include "jobs/sweep/run_cell.h"
#include "jobs/sweep/sweep_schema.h"
#include "results/campaign/collection.h"

namespace winnow::commands {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFile =
    "\nA sweep file names models, data sets and windows; each combination is a cell. Paths are relative to the "
    "file:\n\n"
    "  name: night\n"
    "  output: night\n"
    "  models:\n"
    "    - {name: qwen3-4b, path: /models/Qwen3-4B, gpus_per_node: 4, time: 08:00:00}\n"
    "  datasets:\n"
    "    - {name: long, data: 'data/{model}/long.h5', controls: {short: 'data/{model}/short.h5'}}\n"
    "  windows: [1024, 2048]\n"
    "  sinks: [0, 4]\n"
    "  seeds: [0]\n\n"
    "More keys: targets or decode, exclude, overrides, defaults, limit, ...: winnow sweep schema explains them all.\n";
constexpr const char* kExample =
    "\nOUTPUT/runs/CELL is the run directory of a cell. submit again runs only what is missing.\n"
    "\nExample:\n  winnow sweep plan night.yaml && winnow sweep submit night.yaml\n";

struct Flags {
  std::string file;
  bool json = false;
  bool watch = false;
  std::string executor = "auto";
  slurm::SubmitOptions submit;
  int jobs = 1;
  std::string out;
  std::string submission;
  int task = 0;
  std::vector<std::string> more;
  std::function<int()> run;  // of the verb that was named
};

void print(const std::string& text) {
  const std::string shown = printable(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
}

// Lines of notes and warnings quote names out of files.
void say(const char* kind, const std::string& line) {
  std::fprintf(stderr, "winnow: %s%s\n", kind, one_line(line).c_str());
}

// All that the cells of a sweep read.
ReadPaths read_by(const sweep::Sweep& sweep, const std::string& file) {
  ReadPaths read{.files = {file}, .checkpoints = {}};
  for (const sweep::SweepCell& cell : sweep.cells) {
    read.checkpoints.push_back(cell.options.model);
    read.files.push_back(cell.options.data);
    for (const auto& [name, control] : cell.options.controls) read.files.push_back(control);
    for (const fs::path& selection : sweep::selections_of(cell)) read.files.push_back(selection);
  }
  return read;
}

sweep::SweepView look(const sweep::Sweep& sweep) {
  std::string note;
  const std::map<std::string, sweep::QueueEntry> queue = slurm::slurm_queue(sweep.file.output, &note);
  return sweep::look_at(sweep, queue, note);
}

int run_plan(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  const sweep::SweepView view = look(sweep);
  sweep::Prices prices;
  std::vector<sweep::Price> by_cell;
  for (const sweep::SweepCell& cell : sweep.cells) by_cell.push_back(prices.of(cell));
  flags.json ? print(sweep::dump_json(sweep::plan_json(view, by_cell), 2)) : print(sweep::plan_text(view, by_cell));
  return 0;
}

// Until nothing runs or waits in a queue, at two looks: between two cells of the local executor there is a moment.
int watch(const sweep::Sweep& sweep) {
  const bool is_terminal = isatty(STDOUT_FILENO) != 0;
  for (int idle = 0; idle < 2;) {
    const sweep::SweepView view = look(sweep);
    if (is_terminal) std::fputs("\033[H\033[2J", stdout);
    print(sweep::status_text(view) + (is_terminal ? "" : "\n"));
    std::fflush(stdout);
    bool is_busy = false;
    for (const sweep::CellStatus& status : view.states) {
      is_busy = is_busy || status.state == sweep::CellState::kRunning || status.state == sweep::CellState::kQueued;
    }
    idle = is_busy ? 0 : idle + 1;
    if (idle < 2) std::this_thread::sleep_for(std::chrono::seconds(2));
  }
  return 0;
}

int run_status(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  if (flags.watch && flags.json) fail(ExitCode::kUsage, "sweep status: --watch and --json exclude each other");
  if (flags.watch) return watch(sweep);
  const sweep::SweepView view = look(sweep);
  flags.json ? print(sweep::dump_json(sweep::status_json(view), 2)) : print(sweep::status_text(view));
  return 0;
}

// Those that nobody has, and a line on the others.
std::vector<sweep::Cell> missing_cells(const sweep::SweepView& view) {
  std::vector<sweep::Cell> missing;
  int done = 0;
  int busy = 0;
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    const sweep::CellState state = view.states[i].state;
    if (state == sweep::CellState::kDone) {
      ++done;
    } else if (state == sweep::CellState::kQueued || state == sweep::CellState::kRunning) {
      ++busy;
    } else {
      missing.push_back(view.sweep.cells[i].cell);
    }
  }
  std::fprintf(stderr, "winnow: %zu cells: %d done, %d queued or running, %zu to run\n", view.states.size(), done, busy,
               missing.size());
  return missing;
}

int run_submit(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  if (!flags.submit.dry_run) {
    check_outputs({{.flag = "output:", .path = sweep.file.output, .kind = Output::Kind::kFolder}},
                  read_by(sweep, flags.file));
  }
  for (const std::string& line : sweep::changes_since_submission(sweep)) say("", line);
  const sweep::SweepView view = look(sweep);
  for (const std::string& line : sweep::outdated(view)) say("warning: ", line);
  if (!view.note.empty()) say("note: ", view.note);
  const std::vector<sweep::Cell> missing = missing_cells(view);
  if (missing.empty()) return 0;
  const fs::path winnow = sweep.file.winnow.empty() ? sweep::own_executable() : sweep.file.winnow;
  const bool is_slurm = flags.executor == "slurm" || (flags.executor == "auto" && slurm::has_slurm());
  if (!is_slurm) {
    return local::submit_locally(
        missing, {.output = sweep.file.output, .winnow = winnow, .jobs = flags.jobs, .dry_run = flags.submit.dry_run},
        sweep::submission_record(sweep));
  }
  slurm::SubmitOptions options = flags.submit;
  options.output = sweep.file.output;
  options.sweep_name = sweep.file.name;
  options.winnow = winnow;
  if (options.max_parallel == 0) options.max_parallel = sweep.file.max_parallel;
  options.record = sweep::submission_record(sweep);
  return slurm::submit_to_slurm(missing, options);
}

int run_cancel(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  const sweep::SweepView view = look(sweep);
  std::vector<sweep::Cell> queued;
  int elsewhere = 0;
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    const sweep::CellStatus& status = view.states[i];
    if (!status.job.empty()) {
      queued.push_back(sweep.cells[i].cell);
    } else if (status.state == sweep::CellState::kRunning) {
      ++elsewhere;
    }
  }
  if (elsewhere > 0) {
    std::fprintf(stderr, "winnow: %d cells are run by a local winnow sweep submit: stop it with Ctrl-C where it runs\n",
                 elsewhere);
  }
  if (queued.empty()) {
    print("nothing of " + flags.file + " is in a queue" + (view.note.empty() ? "" : ": " + one_line(view.note)) + "\n");
    return 0;
  }
  return slurm::cancel_on_slurm(queued, sweep.file.output);
}

int run_collect(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  const sweep::SweepView view = look(sweep);
  const fs::path file = flags.out.empty() ? sweep.file.output / (sweep.file.name + ".h5") : fs::path(flags.out);
  ReadPaths read = read_by(sweep, flags.file);
  for (const sweep::SweepCell& cell : sweep.cells) {
    for (const uint64_t seed : cell.cell.seeds) read.files.push_back(cell.cell.results(seed));
  }
  if (flags.out.empty()) sweep::make_directories(sweep.file.output);
  check_outputs({campaign::collection_output(flags.out.empty() ? "" : "--out", file)}, read);
  print(collect(sweep, view.states, file, flags.json));
  for (const std::string& line : sweep::outdated(view)) say("warning: ", line);
  if (!view.note.empty()) say("note: ", view.note);
  return 0;
}

// winnow-report takes run directories.
int run_report(const Flags& flags) {
  const sweep::Sweep sweep = sweep::read_sweep(flags.file);
  std::vector<std::string> words;
  for (const sweep::SweepCell& cell : sweep.cells) {
    if (sweep::is_done(cell.cell)) words.push_back(cell.cell.run_directory.string());
  }
  if (words.empty()) {
    fail(ExitCode::kNoInput, flags.file + ": no cell is done yet; run it with winnow sweep submit " + flags.file);
  }
  words.insert(words.end(), flags.more.begin(), flags.more.end());
  cli::run_external_verb("report", words, {});
  return 0;
}

int run_run_cell(const Flags& flags) {
  const std::unique_ptr<sweep::BatchSystem> batch =
      flags.executor == "local" ? nullptr : slurm::batch_system_here(flags.submission);
  return sweep::run_cell(flags.submission, flags.task, batch.get());
}

// All that is wrong with a sweep file is said at once.
int run_or_refuse(const Flags& flags, int (*run)(const Flags&)) {
  try {
    return run(flags);
  } catch (const sweep::SweepFileError& error) {
    for (const std::string& line : error.lines()) say("", line);
    return static_cast<int>(error.code());
  }
}

cli::Verb add_verb(const cli::Verb& sweep, Flags& flags, const char* name, const char* help, int (*run)(const Flags&)) {
  const cli::Verb verb = sweep.add_subcommand(name, help);
  verb.when_named([&flags, run] { flags.run = [&flags, run] { return run_or_refuse(flags, run); }; });
  return verb;
}

cli::Verb add_file_verb(const cli::Verb& sweep, Flags& flags, const char* name, const char* help,
                        int (*run)(const Flags&)) {
  const cli::Verb verb = add_verb(sweep, flags, name, help, run);
  verb.add_option("file", flags.file, "Sweep file").required().type_name("FILE");
  return verb;
}

void add_plan_and_status(const cli::Verb& sweep, Flags& flags) {
  const cli::Verb plan =
      add_file_verb(sweep, flags, "plan", "What would run, what is done, and what it takes", run_plan);
  plan.add_flag("--json", flags.json, "Print JSON on stdout instead of a table (default: table)");
  const cli::Verb status =
      add_file_verb(sweep, flags, "status", "Where every cell stands, from its files and Slurm", run_status);
  status.add_flag("--json", flags.json, "Print JSON on stdout instead of a table (default: table)");
  status.add_flag("--watch", flags.watch, "Look again every two seconds until nothing runs (default: once)");
}

void add_submit(const cli::Verb& sweep, Flags& flags) {
  const cli::Verb verb =
      add_file_verb(sweep, flags, "submit", "Runs what is missing; the same command goes on", run_submit);
  verb.add_option("--executor", flags.executor, "local, slurm, or auto: Slurm where sbatch is (default: auto)")
      .type_name("NAME")
      .one_of({"auto", "local", "slurm"});
  verb.add_option("--jobs", flags.jobs, "Cells that run at once on this machine (default: 1)")
      .type_name("N")
      .in_range(1, 1024);
  verb.add_option("--max-parallel", flags.submit.max_parallel,
                  "Cells of a Slurm array that run at once (default: the file's max_parallel)")
      .type_name("N")
      .in_range(1, 1000000);
  verb.add_option("--site", flags.submit.site_file, "Site settings for Slurm (default: see slurm/README.md)")
      .type_name("FILE");
  verb.add_flag("--dry-run", flags.submit.dry_run, "Print scripts and commands, and start nothing (default: off)");
}

void add_others(const cli::Verb& sweep, Flags& flags) {
  add_file_verb(sweep, flags, "cancel", "Takes the sweep's jobs out of Slurm; what is finished stays", run_cancel);
  const cli::Verb collect = add_file_verb(sweep, flags, "collect", "Writes one file over all cells", run_collect);
  collect.add_option("--out", flags.out, "File to write (default: OUTPUT/NAME.h5)").type_name("FILE");
  collect.add_flag("--json", flags.json, "Print JSON on stdout instead of a table (default: table)");
  const cli::Verb report = add_file_verb(sweep, flags, "report",
                                         "Runs winnow-report on the cells that are done; takes its flags", run_report);
  report.keep_unknown(flags.more);
  const cli::Verb cell =
      add_verb(sweep, flags, "run-cell", "Runs one cell of a submission; submit calls it", run_run_cell);
  cell.add_option("--submission", flags.submission, "OUTPUT/submissions/ID").required().type_name("DIR");
  cell.add_option("--task", flags.task, "Index of the cell in its cells.json").required().type_name("N");
  cell.add_option("--executor", flags.executor, "local: with mpirun also inside a Slurm job (default: auto)")
      .type_name("NAME")
      .one_of({"auto", "local"});
  const cli::Verb schema = sweep.add_subcommand("schema", "Prints the JSON Schema of sweep files, for editors");
  schema.when_named([&flags] {
    flags.run = [] {
      print(sweep::json_schema());
      return 0;
    };
  });
}

}  // namespace

Command add_sweep(const cli::Verb& program) {
  const auto flags = std::make_shared<Flags>();
  const cli::Verb sweep =
      program.add_subcommand("sweep", "Runs many measurements from one YAML file, here or under Slurm");
  sweep.require_subcommand();
  sweep.footer(kExample);  // its verbs take it over
  add_plan_and_status(sweep, *flags);
  add_submit(sweep, *flags);
  add_others(sweep, *flags);
  sweep.footer(std::string(kFile) + kExample);
  return {.verb = sweep, .run = [flags] { return flags->run(); }, .has_config = false};
}

}  // namespace winnow::commands
