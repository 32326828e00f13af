// The textbook product through shared memory: 16 x 16 threads load a tile of each operand together,
// and each thread adds one output up. As float32, and on words of 32 signs with xor and popcount.
// b is [N, K] like a: its tile is read row by row, and padded by a column against bank conflicts.
#define TILE 16

extern "C" __global__ void shared_fp32(const float *a, const float *b, float *out, int m, int n,
                                       int k) {
    __shared__ float rows[TILE][TILE];
    __shared__ float cols[TILE][TILE + 1];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * TILE + y, col = blockIdx.x * TILE + x;
    const int loaded = blockIdx.x * TILE + y;
    float total = 0.0f;
    for (int start = 0; start < k; start += TILE) {
        const bool inside = start + x < k;
        rows[y][x] = inside && row < m ? a[(long long)row * k + start + x] : 0.0f;
        cols[y][x] = inside && loaded < n ? b[(long long)loaded * k + start + x] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int j = 0; j < TILE; ++j) total += rows[y][j] * cols[x][j];
        __syncthreads();
    }
    if (row < m && col < n) out[(long long)row * n + col] = total;
}

extern "C" __global__ void shared_xnor(const unsigned int *a, const unsigned int *b, int *out,
                                       int m, int n, int words, int k) {
    __shared__ unsigned int rows[TILE][TILE];
    __shared__ unsigned int cols[TILE][TILE + 1];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * TILE + y, col = blockIdx.x * TILE + x;
    const int loaded = blockIdx.x * TILE + y;
    int differing = 0;
    for (int start = 0; start < words; start += TILE) {
        const bool inside = start + x < words;
        rows[y][x] = inside && row < m ? a[(long long)row * words + start + x] : 0u;
        cols[y][x] = inside && loaded < n ? b[(long long)loaded * words + start + x] : 0u;
        __syncthreads();
#pragma unroll
        for (int j = 0; j < TILE; ++j) differing += __popc(rows[y][j] ^ cols[x][j]);
        __syncthreads();
    }
    if (row < m && col < n) out[(long long)row * n + col] = k - 2 * differing;
}
