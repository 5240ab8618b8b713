# Which instruction sets of x86 the compiler uses under -march=ARCH, as definitions for jobs/cli/processor.cc:
# processor_feature_definitions(ARCH OUT) sets OUT to "WINNOW_NEEDS_AVX2=1;WINNOW_NEEDS_FMA=1;...".
function(processor_feature_definitions arch out)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=${arch} -dM -E -x c++ /dev/null
                  OUTPUT_VARIABLE macros ERROR_VARIABLE message RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "WINNOW_ARCH=${arch}: the compiler refuses -march=${arch}; use native, x86-64-v3 or another "
                        "value that it knows\n${message}")
  endif()
  set(definitions)
  foreach(feature SSE4_2 POPCNT AVX AVX2 FMA BMI BMI2 AVX512F AVX512BW AVX512CD AVX512DQ AVX512VL AVX512VNNI)
    if(macros MATCHES "#define __${feature}__ 1")
      list(APPEND definitions WINNOW_NEEDS_${feature}=1)
    else()
      list(APPEND definitions WINNOW_NEEDS_${feature}=0)
    endif()
  endforeach()
  set(${out} ${definitions} PARENT_SCOPE)
endfunction()
