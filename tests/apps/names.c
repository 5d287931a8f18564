/* Loaded before the C library by a test: `pool.test` stands for the addresses in the file NAMES_FILE, one a line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (node == NULL || strcmp(node, "pool.test") != 0)
        return real(node, service, hints, found);
    FILE *file = fopen(getenv("NAMES_FILE"), "r");
    if (file == NULL)
        return EAI_AGAIN;
    char line[64];
    struct addrinfo **end = found;
    *found = NULL;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (real(line, service, hints, end) != 0)
            break;
        while (*end != NULL)
            end = &(*end)->ai_next;
    }
    fclose(file);
    return *found == NULL ? EAI_NONAME : 0;
}
