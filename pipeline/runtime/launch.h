// Finds out how this process was started: alone, or by a launcher as one of the ranks of a job.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace winnow::runtime {

// Returns a variable of the environment; none where it is not set.
using Lookup = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> environment_value(const char* name);

// Returns true if a launcher may have started other processes beside this one, by what launchers leave in the
// environment: false where there was none, or each counts one rank.
bool may_have_peers(const Lookup& lookup = environment_value);

// Returns true if mpirun of Open MPI started this process.
bool is_under_mpirun(const Lookup& lookup = environment_value);

// Returns the home folder of this user by the password file; "/" for one without an entry there (containers).
std::string home_of_user();

// Returns what mpirun lacks to start ranks on this machine, to be set in its environment:
//   - HOME, which PMIx looks up in the password file else, and dies where that has no entry;
//   - TMPDIR, where the one in use cannot be written (a read-only or full /tmp);
//   - the permission to run as root, which Open MPI asks for: who starts winnow as root has decided that already.
// Nothing that the user has set is changed, except a TMPDIR that nobody can write.
std::vector<std::pair<std::string, std::string>> environment_for_mpirun();

// Returns the first folder in which this process can make and fill a temporary file: that of TMPDIR, /tmp, /var/tmp or
// /dev/shm; none where it can in none of them.
std::optional<std::string> writable_temporary_directory(const Lookup& lookup = environment_value);

}  // namespace winnow::runtime
