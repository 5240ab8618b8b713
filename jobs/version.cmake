# Writes winnow_version.h: version and git revision of the sources. Runs at every build, and touches the header only
# when it would change, so a new commit re-compiles only who includes it.
#
#   cmake -DSOURCE=DIR -DOUTPUT=FILE -DVERSION=X.Y.Z -P version.cmake
#
# An archive made by git has the revision in the next line (.gitattributes); a work tree asks git; else "unknown".
set(revision "$Format:%H$")
if(NOT revision MATCHES "^[0-9a-f]+$")
  set(revision "unknown")
  find_program(GIT git)
  if(GIT)
    # Asked with safe.directory: a container often builds a tree of another user. An unpacked archive inside a foreign
    # repository must not take that one's revision, so the root of the work tree has to be ours.
    set(git ${GIT} -c safe.directory=* -C ${SOURCE})
    execute_process(COMMAND ${git} rev-parse --show-toplevel OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE
                    ERROR_QUIET)
    file(REAL_PATH ${SOURCE} source)
    if(top STREQUAL source)
      execute_process(COMMAND ${git} rev-parse HEAD OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                      RESULT_VARIABLE status)
      if(status EQUAL 0)
        set(revision ${head})
        execute_process(COMMAND ${git} diff --quiet HEAD -- RESULT_VARIABLE changed ERROR_QUIET)
        if(NOT changed EQUAL 0)
          string(APPEND revision "+changes")
        endif()
      endif()
    endif()
  endif()
endif()

file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
// Version of the program and revision of its sources. Written by jobs/version.cmake at build time.
#pragma once

namespace winnow {

inline constexpr const char* kVersion = "@VERSION@";
// Hash of the commit, "+changes" behind it when tracked files differ from it; "unknown" without git.
inline constexpr const char* kGitRevision = "@revision@";

}  // namespace winnow
]])
