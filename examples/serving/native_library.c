/* A network without Python or a runtime: reads normalized images (float32, [row][column][channel]) from standard input
 * and prints the outputs, one a line.
 *
 *     repvgg export model.keras model.o --size 224
 *     cc -O2 native_library.c model.o -lpthread -o classify && ./classify < images.bin
 */
#include <stdio.h>
#include <stdlib.h>
#include "model.h"

int main(void) {
    float *images = malloc(REPVGG_IMAGE_FLOATS * sizeof *images), outputs[REPVGG_OUTPUT_FLOATS];
    void *workspace = calloc(1, REPVGG_WORKSPACE_BYTES);
    if (!images || !workspace) return 3;
    while (fread(images, sizeof *images, REPVGG_IMAGE_FLOATS, stdin) == REPVGG_IMAGE_FLOATS) {
        int status = repvgg_run(images, outputs, workspace, 2);
        if (status != REPVGG_OK) return status;
        for (int i = 0; i < REPVGG_OUTPUT_FLOATS; i++) printf("%.9g\n", outputs[i]);
    }
    return 0;
}
