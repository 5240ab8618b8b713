# The longest tests of the C++ programs, which would come last in a folder where ctest has not measured them yet.
set_tests_properties(GenerationGolden.FullAttentionWritesWhatTransformersWrites PROPERTIES COST 100)
set_tests_properties(GenerationGolden.WindowedLayersWriteWhatTransformersWrites PROPERTIES COST 60)
set_tests_properties(Generation.EveryTokenIsTheArgmaxOfTheSweep PROPERTIES COST 40)
