# winnow-demo, which `winnow demo` finds beside the program: in the build tree with the files of the source tree, in
# PREFIX/bin with their copies under PREFIX/share/winnow/demo.
set(WINNOW_DEMO ${PROJECT_SOURCE_DIR}/tests/demo)
set(WINNOW_LAUNCHER ${PROJECT_SOURCE_DIR}/jobs/launcher.sh)
configure_file(winnow-demo.in ${PROJECT_BINARY_DIR}/winnow-demo @ONLY USE_SOURCE_PERMISSIONS)

# Relative to the program, so that an installation can be moved.
set(demo ${CMAKE_INSTALL_DATADIR}/winnow/demo)
file(RELATIVE_PATH installed_demo /${CMAKE_INSTALL_BINDIR} /${demo})
set(WINNOW_DEMO "$here/${installed_demo}")
set(WINNOW_LAUNCHER "$here/${installed_demo}/launcher.sh")
configure_file(winnow-demo.in ${PROJECT_BINARY_DIR}/installed/winnow-demo @ONLY USE_SOURCE_PERMISSIONS)
install(PROGRAMS ${PROJECT_BINARY_DIR}/installed/winnow-demo DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES launcher.sh DESTINATION ${demo})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/tests/demo/model DESTINATION ${demo})
install(FILES ${PROJECT_SOURCE_DIR}/tests/demo/long.h5 ${PROJECT_SOURCE_DIR}/tests/demo/short.h5
  ${PROJECT_SOURCE_DIR}/tests/demo/test.h5 DESTINATION ${demo})
