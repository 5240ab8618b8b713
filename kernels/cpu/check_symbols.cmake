# cmake -DNM=... -DOBJECTS="A;B" -P check_symbols.cmake: fails where an object defines a symbol that the linker may take
# for other objects too (weak or unique), or defines any but the table of kernels.
if(NOT OBJECTS)
  message(FATAL_ERROR "no object to look at")
endif()
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only --extern-only --demangle ${object}
                  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(STRIP "${symbols}" symbols)
  if(NOT symbols MATCHES "^[0-9a-f]+ [DR] winnow::cpu::[a-z0-9_]+::kernels$")
    message(FATAL_ERROR "${object} defines more than its table of kernels:\n${symbols}")
  endif()
endforeach()
