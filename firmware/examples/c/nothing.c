/* A program without the library: what least.c takes more than this is the library's. */
int main(void)
{
    return 0;
}
