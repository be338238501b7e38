# What `cmake --install` lays out: bin/lamina, lib/liblamina.so, include/lamina/<room>/<file>.h, and the CMake package that
# makes find_package(lamina) give lamina::lamina. The program looks for the library in ../lib, so the folder is always lib.
include(CMakePackageConfigHelpers)
set(lamina_package_folder lib/cmake/lamina)

target_compile_features(lamina_shared PUBLIC cxx_std_20)
set_target_properties(lamina_shared PROPERTIES INSTALL_RPATH "$ORIGIN;${LAMINA_TORCH}/lib")

# lamina_torch carries no paths once installed: lamina-config.cmake puts those of the libtorch that it finds there.
set_target_properties(lamina_torch PROPERTIES EXPORT_NAME torch)
install(TARGETS lamina_main RUNTIME DESTINATION bin)
install(TARGETS lamina_shared lamina_torch EXPORT lamina-targets
  LIBRARY DESTINATION lib INCLUDES DESTINATION include)
install(EXPORT lamina-targets NAMESPACE lamina:: DESTINATION ${lamina_package_folder})

# The command line is a program, not an interface, and impl/ is private.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/lamina/ DESTINATION include/lamina
  FILES_MATCHING PATTERN "*.h"
  PATTERN impl EXCLUDE
  PATTERN cli EXCLUDE)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/lamina-config.cmake.in
  ${PROJECT_BINARY_DIR}/lamina-config.cmake INSTALL_DESTINATION ${lamina_package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lamina-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lamina-config.cmake ${PROJECT_BINARY_DIR}/lamina-config-version.cmake
  DESTINATION ${lamina_package_folder})
install(FILES LICENSE NOTICE DESTINATION share/doc/lamina)
