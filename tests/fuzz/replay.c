/* main() for a fuzz target without libFuzzer: runs every file named, or in a folder named, once.
 *
 * So seeds and past crashes are regression tests on any compiler. Prints how many ran; 1 when there
 * was none. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#define INPUT_BYTES_MAX ((size_t)1 << 20)

static unsigned ran;

static void run_file(const char *path)
{
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    FILE *file = fopen(path, "rb");
    if (data == NULL || file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = fread(data, 1, INPUT_BYTES_MAX, file);
    fclose(file);
    uint8_t *exact = fuzz_copy(data, size);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    ran++;
}

static void run_folder(const char *path)
{
    DIR *folder = opendir(path);
    char name[4096];
    if (folder == NULL) {
        perror(path);
        exit(2);
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            run_file(name);
        }
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        struct stat info;
        if (stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode)) {
            run_folder(argv[i]);
        } else {
            run_file(argv[i]);
        }
    }
    printf("%u inputs\n", ran);
    return ran == 0;
}
