# winnow-prepare and winnow-report, which `winnow VERB` looks for beside itself: launchers in the build tree, which run the
# packages of the source tree, and in PREFIX/bin, which run the copies under PREFIX/share/winnow.

# What they need: the "dependencies" of pyproject.toml, one requirement a line.
set(pyproject ${PROJECT_SOURCE_DIR}/pyproject.toml)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pyproject})
file(READ ${pyproject} text)
string(REGEX MATCH "\ndependencies = \\[[^]]*\\]" text "${text}")
string(REGEX MATCHALL "\"[^\"]+\"" requirements "${text}")
if(NOT requirements)
  message(FATAL_ERROR "${pyproject}: no list of dependencies found")
endif()
list(JOIN requirements "\n" requirements)
string(REPLACE "\"" "" requirements "${requirements}")
file(WRITE ${PROJECT_BINARY_DIR}/requirements.txt "${requirements}\n")

# Relative to the launcher, so that an installation can be moved.
file(RELATIVE_PATH installed_home /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_DATADIR}/winnow)
foreach(folder jobs/winnow_prepare results/winnow_report)
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${folder})
    continue()
  endif()
  get_filename_component(WINNOW_MODULE ${folder} NAME)
  string(REPLACE "_" "-" WINNOW_PROGRAM ${WINNOW_MODULE})
  set(WINNOW_HOME "\"${PROJECT_SOURCE_DIR}\"")
  set(WINNOW_REQUIREMENTS "\"${PROJECT_BINARY_DIR}/requirements.txt\"")
  configure_file(python_program.sh.in ${PROJECT_BINARY_DIR}/${WINNOW_PROGRAM} @ONLY USE_SOURCE_PERMISSIONS)
  set(WINNOW_HOME "$(readlink -m \"$here/${installed_home}\")")
  set(WINNOW_REQUIREMENTS "$home/requirements.txt")
  configure_file(python_program.sh.in ${PROJECT_BINARY_DIR}/installed/${WINNOW_PROGRAM} @ONLY USE_SOURCE_PERMISSIONS)
  install(PROGRAMS ${PROJECT_BINARY_DIR}/installed/${WINNOW_PROGRAM} DESTINATION ${CMAKE_INSTALL_BINDIR})
  get_filename_component(parent ${folder} DIRECTORY)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_DATADIR}/winnow/${parent}
    PATTERN __pycache__ EXCLUDE)
endforeach()
# What both packages share.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/results/winnow_files DESTINATION ${CMAKE_INSTALL_DATADIR}/winnow/results
  PATTERN __pycache__ EXCLUDE)
# The packages read VERSION from two folders above their own, here as in the source tree.
install(FILES ${PROJECT_BINARY_DIR}/requirements.txt ${PROJECT_SOURCE_DIR}/VERSION ${PROJECT_SOURCE_DIR}/LICENSE
  DESTINATION ${CMAKE_INSTALL_DATADIR}/winnow)
