#include "pipeline/runtime/launch.h"

#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/file_descriptor.h"

namespace winnow::runtime {
namespace {

// Where launchers leave the number of ranks.
constexpr std::array kCounts = {
    "OMPI_COMM_WORLD_SIZE",  // mpirun of Open MPI; jsrun
    "MV2_COMM_WORLD_SIZE",   // mpirun_rsh of MVAPICH2
    "PMI_SIZE",              // Hydra of MPICH and Intel MPI, srun --mpi=pmi2, Flux, PALS
    "SLURM_STEP_NUM_TASKS",  // srun, with any --mpi
};
// What a launcher leaves that does not say how many.
constexpr std::array kSigns = {"PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_PORT", "MPIRUN_RANK", "ALPS_APP_PE"};

// As much as Open MPI and PMIx put there for a rank: a folder may exist on a full disk.
bool can_fill_a_file_in(const std::string& directory) {
  std::string name = directory + "/winnow-XXXXXX";
  const FileDescriptor file(mkostemp(name.data(), 0));
  if (!file) return false;
  unlink(name.c_str());
  const std::string content(std::size_t{1} << 16, 'w');
  return write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size());
}

}  // namespace

std::optional<std::string> environment_value(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

bool may_have_peers(const Lookup& lookup) {
  bool is_counted = false;
  for (const char* name : kCounts) {
    const auto count = lookup(name);
    if (!count) continue;
    if (*count != "1") return true;
    is_counted = true;
  }
  return !is_counted && std::ranges::any_of(kSigns, [&](const char* name) { return lookup(name).has_value(); });
}

bool is_under_mpirun(const Lookup& lookup) { return lookup("OMPI_COMM_WORLD_SIZE").has_value(); }

std::string home_of_user() {
  const passwd* user = getpwuid(getuid());
  return user == nullptr || user->pw_dir == nullptr ? "/" : user->pw_dir;
}

std::vector<std::pair<std::string, std::string>> environment_for_mpirun() {
  std::vector<std::pair<std::string, std::string>> settings;
  if (!environment_value("HOME")) settings.emplace_back("HOME", home_of_user());
  const std::string used = environment_value("TMPDIR").value_or("/tmp");
  const auto directory = writable_temporary_directory();
  if (directory && *directory != used) settings.emplace_back("TMPDIR", *directory);
  if (geteuid() != 0) return settings;
  // Open MPI to version 4, and PRRTE, the launcher of later ones.
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT",
                           "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"}) {
    if (!environment_value(name)) settings.emplace_back(name, "1");
  }
  return settings;
}

std::optional<std::string> writable_temporary_directory(const Lookup& lookup) {
  std::vector<std::string> candidates = {"/tmp", "/var/tmp", "/dev/shm"};
  if (const auto wanted = lookup("TMPDIR"); wanted && !wanted->empty()) candidates.insert(candidates.begin(), *wanted);
  for (const std::string& candidate : candidates) {
    if (can_fill_a_file_in(candidate)) return candidate;
  }
  return std::nullopt;
}

}  // namespace winnow::runtime
