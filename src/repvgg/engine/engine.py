"""A compiled network that can be called."""

import ctypes
import threading

import numpy as np

from repvgg.engine.machine import Code
from repvgg.engine.pack import pack, zeros
from repvgg.engine.program import ENTRY, Program
from repvgg.engine import sync
class Engine:
    def __init__(self, plan, program):
        self.plan, self.program = plan, program
        isa = program.schedule.isa
        import time
        t=time.perf_counter()
        self.constants = pack(program.arrays)
        t1=time.perf_counter()
        self.code = Code(program.ir + sync.worker(ENTRY), isa)
        t2=time.perf_counter()
        self.times = t1-t, t2-t1
        self.workspace = zeros(program.workspace_bytes)
        P, I, J = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        self._call = ctypes.CFUNCTYPE(None, P, P, P, P, I)(self.code.address("call"))
        self._worker = ctypes.CFUNCTYPE(None, P, P, I, I, J)(self.code.address("worker"))
        self._stop = ctypes.CFUNCTYPE(None, P)(self.code.address("stop"))
        self.threads = program.schedule.threads
        self.pool = [threading.Thread(target=self._worker, args=(self.constants.ctypes.data, self.workspace.ctypes.data, t, self.threads, 0), daemon=True) for t in range(1, self.threads)]
        for t in self.pool: t.start()
    def outputs(self, images):
        images = np.ascontiguousarray(images, np.float32)
        out = np.empty(self.program.output_bytes // 4, np.float32)
        self._call(self.constants.ctypes.data, self.workspace.ctypes.data, images.ctypes.data, out.ctypes.data, self.threads)
        return {n: out[o.offset:o.offset+int(np.prod(o.shape))].reshape(o.shape) for n, o in self.program.outputs.items()}
    def close(self):
        self._stop(self.workspace.ctypes.data)
        for t in self.pool: t.join()
        self.code.close()
