// Uploads a file by tus-js-client as a plan says, and prints what came of it as one line of JSON.
//
// The plan, JSON in the first argument:
//   file          path of what is uploaded
//   source        "file", "buffer", "stream" (of Node) or "web-stream"
//   options       those of tus.Upload that JSON can express
//   storage       path of the file that keeps URLs for later
//   previous      whether to go on with an upload found in the storage
//   abort         {after: bytes} to abort once the server has accepted a chunk that far, or
//                 {stored: bytes} to abort in the middle of a request, once the server has stored so much, or
//                 {parts: bytes} the same, once so much was accepted of all parts together;
//                 with then: "stop", "terminate" or "start" (to go on with the same object)
//   terminate     a URL to terminate; nothing is uploaded

import { createReadStream, readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import * as module from 'tus-js-client'

const tus = module.Upload ? module : module.default
const plan = JSON.parse(process.argv[2])
const requests = []

async function storageAt(path) {
  const { FileUrlStorage } = tus.FileUrlStorage ? tus : await import('tus-js-client/node/FileUrlStorage')
  return new FileUrlStorage(path)
}

function open(source, file) {
  switch (source) {
    case 'file':
      return createReadStream(file)
    case 'buffer':
      return readFileSync(file)
    case 'stream':
      return Readable.from(createReadStream(file), { objectMode: false })
    case 'web-stream':
      return Readable.toWeb(createReadStream(file))
  }
  throw new Error(`unknown source ${source}`)
}

function report(outcome) {
  process.stdout.write(`${JSON.stringify({ requests, at: Date.now(), ...outcome })}\n`, () => process.exit(0))
}

async function untilStored(upload, bytes) {
  for (;;) {
    if (upload.url) {
      const reply = await fetch(upload.url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
      if (Number(reply.headers.get('Upload-Offset')) >= bytes) return
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function main() {
  const options = {
    ...plan.options,
    onAfterResponse(request, response) {
      requests.push([request.getMethod(), response.getStatus()])
    },
  }
  if (plan.terminate) {
    await tus.Upload.terminate(plan.terminate, options)
    return report({ outcome: 'terminated' })
  }
  if (plan.storage) {
    options.urlStorage = await storageAt(plan.storage)
  }

  let aborted = false
  let inParts = 0
  async function abort() {
    if (aborted) return
    aborted = true
    await upload.abort(plan.abort.then === 'terminate')
    if (plan.abort.then === 'start') upload.start()
    else report({ outcome: 'aborted', url: upload.url })
  }

  const upload = new tus.Upload(open(plan.source, plan.file), {
    ...options,
    onSuccess(payload) {
      const reply = payload?.lastResponse
      report({ outcome: 'success', url: upload.url, app: reply?.getHeader('X-App') ?? null })
    },
    onError(error) {
      report({ outcome: 'error', url: upload.url, error: String(error) })
    },
    onChunkComplete(size, accepted) {
      inParts += size
      if (accepted >= plan.abort?.after || inParts >= plan.abort?.parts) abort()
    },
  })
  let previous = []
  if (plan.previous) {
    previous = await upload.findPreviousUploads()
    if (previous.length !== 1) return report({ outcome: 'error', error: `${previous.length} previous uploads` })
    upload.resumeFromPreviousUpload(previous[0])
  }
  upload.start()
  if (plan.abort?.stored) {
    await untilStored(upload, plan.abort.stored)
    await abort()
  }
}

main().catch((error) => report({ outcome: 'error', error: String(error?.stack ?? error) }))
